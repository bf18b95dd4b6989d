//! Whether this process is in a user namespace of its own, where some mounts are other than outside.

use std::fs::File;
use std::io::Read;

use rustix::fs::stat;

/// The inode of the first user namespace (PROC_USER_INIT_INO in Linux' proc_ns.h).
const INITIAL: u64 = 0xEFFF_FFFD;

/// Whether this is the first user namespace, that of the machine.
pub fn is_initial() -> bool {
    stat("/proc/self/ns/user").is_ok_and(|stat| stat.st_ino == INITIAL)
}

/// Whether setgroups(2) is denied here, as where an ordinary user mapped its own group only
/// (user_namespaces(7)).
pub fn denies_groups() -> bool {
    std::fs::read("/proc/self/setgroups").is_ok_and(|text| text.starts_with(b"deny"))
}

/// Whether the procfs at /proc shows the PID namespace of this process: to an outer one, a process
/// has several numbers (`NSpid` in proc(5)).
pub fn proc_is_ours() -> bool {
    let mut status = String::new();
    let read = File::open("/proc/self/status").and_then(|mut f| f.read_to_string(&mut status));
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    read.is_ok() && numbers.is_some_and(|numbers| numbers.split_whitespace().count() == 1)
}
