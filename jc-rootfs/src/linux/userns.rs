//! The namespaces of this process, as far as mounts depend on them.

pub use jc_unshare::userns::is_initial;
use jc_unshare::{Absent, Context, Result};
use rustix::fs::stat;

/// The number of the namespace that is `name` in /proc/self/ns (namespaces(7)).
pub fn number(name: &str) -> Result<u64> {
    let path = format!("/proc/self/ns/{name}");
    Ok(stat(path.as_str()).on("stat", &path)?.st_ino)
}

/// Whether this user namespace denies setgroups(2), as after an unprivileged user has mapped one group
/// (user_namespaces(7)). A kernel without user namespaces lacks the file.
pub fn denies_groups() -> Result<bool> {
    let path = "/proc/self/setgroups";
    let text = std::fs::read(path).on("read", path).absent()?;
    Ok(text.is_some_and(|text| text.starts_with(b"deny")))
}

/// Whether the procfs at /proc shows the PID namespace of this process: to an outer one, a process
/// has several numbers (`NSpid` in proc(5)).
pub fn proc_is_ours() -> Result<bool> {
    let path = "/proc/self/status";
    let status = std::fs::read_to_string(path).on("read", path)?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    Ok(numbers.is_some_and(|numbers| numbers.split_whitespace().count() == 1))
}
