//! Skipped tests. With `JC_MUST_RUN=1` a skipped test is a failure.

use std::env;
use std::fs::OpenOptions;
use std::io::Write;

use crate::inside::{SKIPPED, is_inside};

/// The start of the line of a skipped test.
pub(crate) const MARK: &str = "skipped: ";

/// Ends a test that cannot run. The reason is given as in `format!`.
#[macro_export]
macro_rules! skip {
    ($($why:tt)*) => {{
        $crate::skip(&format!($($why)*));
        return;
    }};
}

/// The function behind [`skip!`](crate::skip!). It does not return inside of a sandbox.
pub fn skip(why: &str) {
    if is_inside() {
        leave_skipped(why);
    }
    let thread = std::thread::current();
    record(thread.name().unwrap_or("?"), why);
}

/// Ends the inside of a sandbox of a test that cannot run.
pub(crate) fn leave_skipped(why: &str) -> ! {
    println!("{MARK}{why}");
    std::process::exit(SKIPPED)
}

/// Records a skipped test in the file that `make test` counts.
pub(crate) fn record(test: &str, why: &str) {
    if env::var_os("JC_MUST_RUN").is_some_and(|v| v == "1") {
        panic!("cannot run, and JC_MUST_RUN is set: {why}");
    }
    println!("{MARK}{why}");
    if let Some(log) = env::var_os("JC_SKIP_LOG") {
        // The line is written at once, since tests run concurrently.
        let line = format!("{test}: {why}\n");
        let mut log = OpenOptions::new().append(true).create(true).open(log).unwrap();
        log.write_all(line.as_bytes()).unwrap();
    }
}
