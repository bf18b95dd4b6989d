//! Hints for errors of namespaces, from the settings of the kernel.

use std::fs;

use nix::libc;
use nix::unistd::{getegid, geteuid};
use rustix::thread::capabilities;

use super::procfs::status;
use super::sys::clone;
use crate::capability::{NET_ADMIN, SYS_ADMIN};
use crate::error::Error;

/// The flag of each kind of namespace, and the name of the kind in sysctls.
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

/// Sysctls of distributions, each with the value at which ordinary users cannot make user namespaces.
const SWITCHES: [(&str, &str); 2] = [
    ("kernel.unprivileged_userns_clone", "0"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1"),
];

/// Whether this process has the capability in its user namespace. capget(2) of the calling process does
/// not fail.
pub fn capable(capability: u32) -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.bits() >> capability & 1 == 1)
}

/// Adds a hint to an error of clone(2) or unshare(2) with these `flags`.
pub fn advise(flags: u64) -> impl Fn(Error) -> Error {
    move |error| match missing(flags, error.errno()) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// Adds a hint to an error inside a new user namespace: AppArmor permits the namespace, and denies its
/// capabilities.
pub fn advise_inside(error: Error) -> Error {
    let denied = matches!(error.errno(), Some(libc::EPERM | libc::EACCES));
    match switched_off().filter(|_| denied) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// A hint about a capability that this process lacks. `other` is another remedy for an ordinary user.
pub fn lacking(capability: &str, other: &str) -> String {
    if geteuid().is_root() {
        format!(
            "this process is root without {capability}, as in a container with default restrictions: a privileged \
             container has it, and jc-landlock needs no capability"
        )
    } else {
        format!("this needs {capability}: run as root{other}")
    }
}

/// A hint about the surroundings of this process, for an error that has no other one.
pub fn surroundings(error: &Error) -> Option<String> {
    let has = |path: &str| error.to_string().contains(path);
    match error.errno() {
        Some(libc::ENOENT | libc::ENOTDIR) if has("/proc/self/") && !is_there("/proc/self") => {
            Some("no procfs is mounted: mount -t proc proc /proc".to_owned())
        }
        Some(libc::EAGAIN) if has("clone") || has("fork") => Some(
            "a limit of processes is reached, which those of jc count for too: --pids-limit, pids.max of a group above, or ulimit -u"
                .to_owned(),
        ),
        Some(libc::EACCES | libc::EPERM) if has("/oom_score_adj") => {
            Some("a value below the caller's needs CAP_SYS_RESOURCE".to_owned())
        }
        Some(libc::EPERM) if has("chroot ") && !geteuid().is_root() => {
            Some(lacking("CAP_SYS_CHROOT", ", or put jc-unshare -U -r in front"))
        }
        Some(libc::EROFS) if has("/sys/fs/cgroup/") => Some(
            "cgroups are read-only, as in a container with default restrictions: a run without limits needs none"
                .to_owned(),
        ),
        Some(libc::EROFS) if has("/proc/sys/") => Some(
            "settings are read-only, as in a container with default restrictions: --network none changes none"
                .to_owned(),
        ),
        Some(libc::EPERM) if geteuid().is_root() && !capable(SYS_ADMIN) => {
            Some(lacking("CAP_SYS_ADMIN", ""))
        }
        Some(libc::EPERM) if has("set lo up") && !capable(NET_ADMIN) => {
            Some(lacking("CAP_NET_ADMIN", ""))
        }
        _ => None,
    }
}

fn is_there(path: &str) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// The oldest kernel that every program supports, as version and patch level.
const OLDEST_KERNEL: (u32, u32) = (5, 15);

/// A hint for an errno that may mean an unknown system call or flag, if the kernel is older than supported.
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

/// The version and patch level at the start of a kernel release (uname(2)). `None`: the text has another form.
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

/// The likeliest reason for EPERM.
fn refused(flags: u64) -> Option<String> {
    let is_user = flags & clone::NEWUSER != 0;
    if !is_user && !capable(SYS_ADMIN) {
        return Some(lacking("CAP_SYS_ADMIN", ", or put jc-unshare -U -r in front"));
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
    off.map(|(name, value)| if name.contains("apparmor") { format!(
            "the sysctl {name} is {value}; root allows it to jc by: install -m 644 /usr/share/jc/apparmor \
             /etc/apparmor.d/jc && apparmor_parser -r /etc/apparmor.d/jc"
        ) } else { format!("the sysctl {name} is {value}: only root may, until it is changed") })
}

/// Whether an ID of this process has a mapping in `/proc/self/uid_map` or `gid_map`. The ID of a process
/// without a mapping appears as the overflow ID.
fn is_mapped(map: &str, id: u32) -> bool {
    let Ok(map) = fs::read_to_string(format!("/proc/self/{map}")) else { return true };
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map_while(|number| number.parse::<u32>().ok());
        let (first, count) = (numbers.next(), numbers.nth(1));
        first.zip(count).is_some_and(|(first, count)| id >= first && id - first < count)
    })
}

/// Whether a seccomp filter is active in this process. Without a procfs the answer is no.
pub fn is_filtered() -> bool {
    status("Seccomp").is_ok_and(|mode| mode.as_deref() == Some("2"))
}

fn sysctl(name: &str) -> Option<String> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}
