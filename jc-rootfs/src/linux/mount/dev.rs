//! /dev of a container.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use jc_unshare::{Absent, Context, Result};
use nix::libc;
use rustix::fs::{FileType, Mode, OFlags, chmodat, makedev, mknodat, openat, symlinkat};
use rustix::io::Errno;

use super::fscontext::{attach, attach_below, clone_tree, new_mount};
use super::resolve::real_dir;
use crate::linux::args::values::Dev;
use crate::linux::sys::attr;
use crate::linux::userns;

/// What holds for file systems that are no place for programs and devices.
pub const NOTHING_RUNS: u64 = attr::NOSUID | attr::NODEV | attr::NOEXEC;

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

/// Mounts /dev as it is asked for; `shm_size` as tmpfs(5) takes it.
pub fn mount_dev(root: BorrowedFd<'_>, how: Dev, shm_size: &str) -> Result<()> {
    if how == Dev::None {
        return Ok(());
    }
    let target = real_dir(root, "dev")?;
    match how {
        Dev::Host => attach(clone_tree(Path::new("/dev"))?, &target, Path::new("/dev")),
        _ => mount_own(&target, shm_size),
    }
}

/// A tmpfs with the default devices, its own pseudo-terminals, shared memory and message queues.
fn mount_own(target: &OwnedFd, shm_size: &str) -> Result<()> {
    let dev =
        new_mount("tmpfs", &[("mode", "0755"), ("size", "64k")], attr::NOSUID | attr::NOEXEC)?;
    attach(&dev, target, Path::new("/dev"))?;
    for (name, major, minor) in DEVICES {
        device(&dev, name, makedev(major, minor))?;
    }
    for (name, link) in LINKS {
        symlinkat(link, &dev, name).on("symlink", Path::new("/dev").join(name))?;
    }
    mount_below(&dev, "pts", &terminals()?)?;
    let shm = new_mount("tmpfs", &[("mode", "1777"), ("size", shm_size)], NOTHING_RUNS)?;
    mount_below(&dev, "shm", &shm)?;
    match message_queues()? {
        Some(queues) => mount_below(&dev, "mqueue", &queues),
        None => Ok(()),
    }
}

/// The message queues of this IPC namespace. To a user namespace that does not own the IPC namespace
/// the kernel refuses a mount of them (EPERM): the payload then sees the host's, if the host has
/// mounted them.
fn message_queues() -> Result<Option<OwnedFd>> {
    match new_mount("mqueue", &[], NOTHING_RUNS) {
        Err(error) if error.errno() == Some(libc::EPERM) && !userns::is_initial()? => {
            clone_tree(Path::new("/dev/mqueue")).absent()
        }
        made => made.map(Some),
    }
}

/// Pseudo-terminals of its own.
fn terminals() -> Result<OwnedFd> {
    let options = [("ptmxmode", "0666"), ("mode", "0620"), ("gid", TTY_GROUP)];
    let attributes = attr::NOSUID | attr::NOEXEC;
    match new_mount("devpts", &options, attributes) {
        // EINVAL: this user namespace has no mapping for the group.
        Err(error) if error.errno() == Some(libc::EINVAL) && !userns::is_initial()? => {
            new_mount("devpts", &options[..2], attributes)
        }
        other => other,
    }
}

/// The group of terminals, by number: the same in every distribution.
const TTY_GROUP: &str = "5";

fn mount_below(dev: &OwnedFd, name: &str, mount: &OwnedFd) -> Result<()> {
    let shown = Path::new("/dev").join(name);
    attach_below(mount, dev, name, &shown)
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
