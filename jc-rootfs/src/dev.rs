//! The kernel's own directories of a container: /proc, /dev, /sys.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use jc_unshare::{Context, Result};
use rustix::fs::{FileType, Mode, OFlags, chmodat, makedev, mkdirat, mknodat, openat, symlinkat};
use rustix::io::Errno;

use crate::fscontext::{attach, clone_tree, new_mount, restrict_tree};
use crate::resolve::real_dir;
use crate::sys::attr;

const NOTHING_RUNS: u64 = attr::NOSUID | attr::NODEV | attr::NOEXEC;

/// Mounts a new procfs, which shows the PID namespace of this process.
pub fn mount_proc(root: BorrowedFd<'_>) -> Result<()> {
    let target = real_dir(root, "proc")?;
    let proc = new_mount("proc", &[], NOTHING_RUNS)?;
    attach(&proc, &target, Path::new("/proc"))
}

/// Mounts sysfs, read-only. Only the owner of the network namespace may have a new one; to others
/// the host's is shown.
pub fn mount_sys(root: BorrowedFd<'_>) -> Result<()> {
    let target = real_dir(root, "sys")?;
    let attributes = NOTHING_RUNS | attr::RDONLY;
    let sys = match new_mount("sysfs", &[], attributes) {
        Ok(sys) => sys,
        Err(error) => {
            let sys = clone_tree(Path::new("/sys")).map_err(|_| error)?;
            restrict_tree(sys.as_fd(), attributes, Path::new("/sys"))?;
            sys
        }
    };
    attach(&sys, &target, Path::new("/sys"))
}

/// The devices that every container has (OCI runtime-spec config-linux.md, "Default Devices").
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// The links that every container has (the same, "/dev symbolic links").
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Mounts a /dev of its own: a tmpfs with the default devices, its own pseudo-terminals, shared
/// memory and message queues.
pub fn mount_dev(root: BorrowedFd<'_>) -> Result<()> {
    let target = real_dir(root, "dev")?;
    let dev =
        new_mount("tmpfs", &[("mode", "0755"), ("size", "64k")], attr::NOSUID | attr::NOEXEC)?;
    attach(&dev, &target, Path::new("/dev"))?;
    for (name, major, minor) in DEVICES {
        device(&dev, name, makedev(major, minor))?;
    }
    for (name, link) in LINKS {
        symlinkat(link, &dev, name).on("symlink", Path::new("/dev").join(name))?;
    }
    let pts = [("ptmxmode", "0666"), ("mode", "0620"), ("gid", TTY_GROUP)];
    mount_below(&dev, "pts", "devpts", &pts, attr::NOSUID | attr::NOEXEC)?;
    mount_below(&dev, "shm", "tmpfs", &[("mode", "1777"), ("size", "64m")], NOTHING_RUNS)?;
    mount_below(&dev, "mqueue", "mqueue", &[], NOTHING_RUNS)
}

/// The group of terminals, by number: the same in every distribution.
const TTY_GROUP: &str = "5";

fn mount_below(
    dev: &OwnedFd,
    name: &str,
    kind: &'static str,
    options: &[(&str, &str)],
    attributes: u64,
) -> Result<()> {
    let shown = Path::new("/dev").join(name);
    mkdirat(dev, name, Mode::from_raw_mode(0o755)).on("mkdir", &shown)?;
    let mount = new_mount(kind, options, attributes)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = openat(dev, name, flags, Mode::empty()).on("open", &shown)?;
    attach(&mount, &target, &shown)
}

/// Makes a device node, or where that is not allowed (user namespaces) shows the host's.
fn device(dev: &OwnedFd, name: &str, number: u64) -> Result<()> {
    let shown = Path::new("/dev").join(name);
    let mode = Mode::from_raw_mode(0o666);
    match mknodat(dev, name, FileType::CharacterDevice, mode, number) {
        Err(Errno::PERM) => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            let target = openat(dev, name, flags, mode).on("create", &shown)?;
            attach(clone_tree(&shown)?, &target, &shown)
        }
        made => {
            made.on("mknod", &shown)?;
            chmodat(dev, name, mode, rustix::fs::AtFlags::empty()).on("chmod", &shown)
        }
    }
}
