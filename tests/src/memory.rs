//! How much memory a waiting link takes.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::{Running, Sandbox};

/// A program's path as a file of its own: of it nobody else has mapped pages, so that all are private.
pub fn own_copy(s: &Sandbox, program: &str) -> PathBuf {
    let copy = s.path(program);
    fs::copy(s.bin(program), &copy).unwrap();
    copy
}

/// Panics unless the process, which has said that its payload runs, soon has less private memory than
/// this many KiB: what it has written, and the pages of its program that nobody else has mapped.
pub fn waits_in_less_than(running: &Running, limit: u64) {
    let private = || -> u64 {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", running.pid())).unwrap();
        let lines = rollup.lines().filter(|line| line.starts_with("Private_"));
        lines.map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()).sum()
    };
    // The payload may be there sooner than the link has begun to wait.
    for _ in 0..100 {
        if private() < limit {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let private = private();
    eprintln!("{private} KiB");
    assert!(private < limit, "{private} KiB");
}
