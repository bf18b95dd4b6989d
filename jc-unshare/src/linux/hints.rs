//! Hints for errors of namespaces, by the settings of the kernel.

use std::fs;

use nix::libc;
use nix::unistd::{getegid, geteuid};
use rustix::thread::capabilities;

use super::procfs::status;
use super::sys::clone;
use crate::capability::SYS_ADMIN;
use crate::error::Error;

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

/// Whether this process has the capability in its user namespace. capget(2) of the calling process does
/// not fail.
pub fn capable(capability: u32) -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.bits() >> capability & 1 == 1)
}

/// Makes a failure to create the namespaces of `flags` say what would help.
pub fn advise(flags: u64) -> impl Fn(Error) -> Error {
    move |error| match missing(flags, error.errno()) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// Makes a failure inside of a new user namespace say what would help: AppArmor lets it be made, and
/// then takes the capabilities away.
pub fn advise_inside(error: Error) -> Error {
    let denied = matches!(error.errno(), Some(libc::EPERM | libc::EACCES));
    match switched_off().filter(|_| denied) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// The oldest kernel that every program supports, by version and patch level.
const OLDEST_KERNEL: (u32, u32) = (5, 15);

/// Advice for an error that a system call or a flag of a newer kernel causes, if the kernel is older than the oldest one that
/// is supported.
pub fn old_kernel(errno: Option<i32>) -> Option<String> {
    if !matches!(errno, Some(libc::ENOSYS | libc::EINVAL | libc::EOPNOTSUPP)) {
        return None;
    }
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let (major, minor) = OLDEST_KERNEL;
    (kernel_version(&release)? < OLDEST_KERNEL)
        .then(|| format!("Linux {major}.{minor} or later is needed, and this is {release}"))
}

/// Version and patch level at the start of a kernel release (uname(2)). `None`: the text has another form.
pub fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn missing(flags: u64, errno: Option<i32>) -> Option<String> {
    let exhausted = |(flag, kind): &(u64, &str)| {
        let name = format!("user.max_{kind}_namespaces");
        (flags & flag != 0 && sysctl(&name)? == "0").then(|| format!("the sysctl {name} is 0"))
    };
    match errno {
        Some(libc::ENOSPC) => KINDS.iter().find_map(exhausted).or_else(|| {
            let counts = "namespaces nest 32 levels deep, and the user.max_*_namespaces sysctls \
                          of this user namespace and those above it count them";
            Some(counts.to_owned())
        }),
        Some(libc::EINVAL | libc::ENOSYS) => Some("this kernel may lack some of them".to_owned()),
        Some(libc::EPERM | libc::EACCES) => refused(flags),
        _ => None,
    }
}

/// Why the kernel may say EPERM, the likeliest first.
fn refused(flags: u64) -> Option<String> {
    let is_user = flags & clone::NEWUSER != 0;
    if !is_user && !capable(SYS_ADMIN) {
        let hint = "this needs CAP_SYS_ADMIN: run as root, or put jc-unshare -U -r in front";
        return Some(hint.to_owned());
    }
    if is_user
        && !(is_mapped("uid_map", geteuid().as_raw()) && is_mapped("gid_map", getegid().as_raw()))
    {
        return Some("the caller itself is not mapped in its user namespace".to_owned());
    }
    let switched_off = switched_off().filter(|_| !capable(SYS_ADMIN));
    switched_off.or_else(|| {
        is_filtered().then(|| {
            "a seccomp filter is active and may forbid it, as that of a container does".to_owned()
        })
    })
}

fn switched_off() -> Option<String> {
    let off = SWITCHES.iter().find(|(name, off)| sysctl(name).as_deref() == Some(*off));
    off.map(|(name, value)| {
        format!("the sysctl {name} is {value}: only root may, until it is changed")
    })
}

/// Whether an ID of this user namespace has a mapping, by `/proc/self/uid_map` or `gid_map`. That of
/// the overflow user is shown for all that have none.
fn is_mapped(map: &str, id: u32) -> bool {
    let Ok(map) = fs::read_to_string(format!("/proc/self/{map}")) else { return true };
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map_while(|number| number.parse::<u32>().ok());
        let (first, count) = (numbers.next(), numbers.nth(1));
        first.zip(count).is_some_and(|(first, count)| id >= first && id - first < count)
    })
}

/// Whether a seccomp filter is active in this process, as far as a procfs shows that.
pub fn is_filtered() -> bool {
    status("Seccomp").is_ok_and(|mode| mode.as_deref() == Some("2"))
}

fn sysctl(name: &str) -> Option<String> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}
