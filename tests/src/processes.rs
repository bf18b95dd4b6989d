//! The processes of the PID namespace.

use std::fs;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The PIDs and command lines of the other processes, without zombies. A single list may miss a process whose parent
/// ends during the read, so an empty list counts only after three reads.
pub(crate) fn running() -> Vec<(i32, String)> {
    (0..3).map(|_| listed()).find(|list| !list.is_empty()).unwrap_or_default()
}

fn listed() -> Vec<(i32, String)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != 1 && !is_zombie(*pid))
        .map(|pid| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            (pid, String::from_utf8_lossy(&command).replace('\0', " "))
        })
        .collect()
}

fn is_zombie(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

/// Whether the name of a process (`comm`, proc(5)) begins with a text.
pub(crate) fn is_named(pid: i32, start: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.starts_with(start))
}

/// Whether a process sleeps, and no signal of the process or of its first thread is pending. A process that has ended
/// is idle.
pub(crate) fn is_idle(pid: i32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return true };
    let field = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        line.trim().to_owned()
    };
    let is_zero = |key: &str| field(key).bytes().all(|digit| digit == b'0');
    !field("State:").starts_with(['R', 'D']) && is_zero("SigPnd:") && is_zero("ShdPnd:")
}

/// Sends a signal to a process of the test.
pub(crate) fn signal_pid(pid: i32, signal: Signal) {
    if let Ok(pidfd) = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()) {
        // The process may have ended.
        let _: rustix::io::Result<()> = pidfd_send_signal(pidfd, signal);
    }
}
