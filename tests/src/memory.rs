//! The memory of a waiting link.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::{Running, Sandbox};

/// A copy of a program. No other process has mapped pages of the copy, so all its pages are private.
pub fn own_copy(s: &Sandbox, program: &str) -> PathBuf {
    let copy = s.path(program);
    fs::copy(s.bin(program), &copy).unwrap();
    copy
}

/// Panics unless the process of a running payload soon has less private memory than `limit` KiB. Private memory is
/// anonymous pages, and pages of the program that no other process maps.
pub fn waits_in_less_than(running: &Running, limit: u64) {
    soon_less_than(running, &["Private_Clean", "Private_Dirty"], limit);
}

/// Panics unless the process of a running payload soon has less anonymous memory than `limit` KiB, which does not
/// depend on the size of the program.
pub fn has_written_less_than(running: &Running, limit: u64) {
    soon_less_than(running, &["Anonymous"], limit);
}

fn soon_less_than(running: &Running, fields: &[&str], limit: u64) {
    let taken = || -> u64 {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", running.pid())).unwrap();
        let lines = rollup.lines().filter_map(|line| line.split_once(':'));
        let lines = lines.filter(|(name, _)| fields.contains(name));
        lines.map(|(_, value)| value.trim_end_matches("kB").trim().parse::<u64>().unwrap()).sum()
    };
    // The payload may run before the link waits.
    for _ in 0..500 {
        if taken() < limit {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let taken = taken();
    println!("{taken} KiB");
    assert!(taken < limit, "{taken} KiB of {fields:?}");
}
