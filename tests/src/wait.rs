//! Waits for conditions.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::processes::{is_idle, is_named, running};

/// The bound against hangs.
const LIMIT: Duration = Duration::from_secs(30);

/// The time between two looks.
const TICK: Duration = Duration::from_millis(2);

/// Waits until a condition holds. Panics after a bound against hangs.
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(what, || holds().then_some(()));
}

/// Waits for a value. Panics after a bound against hangs.
#[track_caller]
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(start.elapsed() < LIMIT, "waited in vain: {what}");
        thread::sleep(TICK);
    }
}

/// Gives a condition so many pauses to hold. Pauses are counted in place of time, since a machine may stand still for
/// seconds.
pub fn give_pauses((number, pause): (u32, Duration), mut holds: impl FnMut() -> bool) {
    for _ in 0..number {
        if holds() {
            return;
        }
        thread::sleep(pause);
    }
    holds();
}

/// Waits until a file has a line with a text. Returns the whole file.
#[track_caller]
pub fn wait_for_line(path: &Path, text: &str) -> String {
    wait_for(&format!("{text:?} in {}", path.display()), || {
        let found = fs::read_to_string(path).unwrap_or_default();
        let is_there = found.ends_with('\n') && found.lines().any(|line| line.contains(text));
        is_there.then_some(found)
    })
}

/// Waits until the processes whose names begin with a text have received all signals that were sent to them, and
/// sleep.
#[track_caller]
pub fn wait_until_idle(start: &str) {
    wait_until(&format!("{start} to sleep"), || {
        running().iter().filter(|(pid, _)| is_named(*pid, start)).all(|(pid, _)| is_idle(*pid))
    });
}
