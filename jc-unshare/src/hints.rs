//! What keeps a process from making namespaces, as far as the kernel tells, and the way out.

use std::fs;

use crate::error::Error;
use crate::sys::clone;

/// capabilities(7)
const CAP_SYS_ADMIN: u32 = 21;

/// The namespaces with the names that sysctls give them.
const KINDS: [(u64, &str); 8] = [
    (clone::NEWUSER, "user"),
    (clone::NEWNS, "mnt"),
    (clone::NEWPID, "pid"),
    (clone::NEWUTS, "uts"),
    (clone::NEWIPC, "ipc"),
    (clone::NEWNET, "net"),
    (clone::NEWCGROUP, "cgroup"),
    (clone::NEWTIME, "time"),
];

/// Sysctls of distributions that keep ordinary users from making user namespaces, with the value
/// that does.
const SWITCHES: [(&str, &str); 2] = [
    ("kernel.unprivileged_userns_clone", "0"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1"),
];

/// Whether this process has the capability in its user namespace.
pub fn capable(capability: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    effective.is_some_and(|set| set >> capability & 1 == 1)
}

/// Makes a failure to create the namespaces of `flags` say what would help.
pub fn advise(flags: u64) -> impl Fn(Error) -> Error {
    move |error| match missing(flags) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

fn missing(flags: u64) -> Option<String> {
    let exhausted = |(flag, kind): &(u64, &str)| {
        let name = format!("user.max_{kind}_namespaces");
        (flags & flag != 0 && sysctl(&name)? == "0").then(|| format!("the sysctl {name} is 0"))
    };
    if let Some(hint) = KINDS.iter().find_map(exhausted) {
        return Some(hint);
    }
    if capable(CAP_SYS_ADMIN) {
        // Root of a namespace is refused only for a depth of 32 levels or a count.
        let counts =
            "namespaces nest 32 levels deep, and the user.max_*_namespaces sysctls count them";
        return (flags != 0).then(|| counts.to_owned());
    }
    if flags & clone::NEWUSER == 0 {
        return Some(
            "this needs CAP_SYS_ADMIN: run as root, or put jc-unshare -U -r in front".into(),
        );
    }
    let off = SWITCHES.iter().find(|(name, off)| sysctl(name).as_deref() == Some(*off));
    off.map(|(name, value)| {
        format!("the sysctl {name} is {value}: only root may, until it is changed")
    })
}

fn sysctl(name: &str) -> Option<String> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}
