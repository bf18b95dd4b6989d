//! Tests that cannot run here say so; where `JC_MUST_RUN=1`, that is a failure.

use std::env;
use std::fs::OpenOptions;
use std::io::Write;

/// What the line of a skipped test starts with.
pub(crate) const MARK: &str = "skipped: ";

/// Ends the test: it cannot run here, for the reason given as in `format!`.
#[macro_export]
macro_rules! skip {
    ($($why:tt)*) => {{
        $crate::skip(&format!($($why)*));
        return;
    }};
}

/// The function behind [`skip!`](crate::skip!). It does not return inside of a sandbox.
pub fn skip(why: &str) {
    if crate::sandbox::is_inside() {
        crate::sandbox::leave_skipped(why);
    }
    let thread = std::thread::current();
    record(thread.name().unwrap_or("?"), why);
}

/// Puts the skipped test where `make test` counts it.
pub(crate) fn record(test: &str, why: &str) {
    if env::var_os("JC_MUST_RUN").is_some_and(|v| v == "1") {
        panic!("cannot run, and JC_MUST_RUN is set: {why}");
    }
    println!("{MARK}{why}");
    if let Some(log) = env::var_os("JC_SKIP_LOG") {
        // One write each: tests run at the same time.
        let line = format!("{test}: {why}\n");
        let mut log = OpenOptions::new().append(true).create(true).open(log).unwrap();
        log.write_all(line.as_bytes()).unwrap();
    }
}
