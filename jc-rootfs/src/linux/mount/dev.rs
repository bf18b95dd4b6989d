//! /dev of a container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use jc_unshare::descriptor::open_at;
use jc_unshare::{Absent, Context, Error, Result, userns};
use nix::libc;
use rustix::fs::{FileType, Mode, OFlags, chmodat, fstat, makedev, mknodat, openat, symlinkat};
use rustix::io::Errno;

use super::fscontext::{attach, attach_below, clone_fd, clone_tree, new_mount};
use super::resolve::real_dir;
use crate::linux::args::values::Dev;
use crate::linux::sys::{attr, mount_setattr, propagation};

/// The default devices (OCI runtime-spec config-linux.md, "Default Devices").
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// The default symbolic links (OCI runtime-spec runtime-linux.md, "Dev symbolic links").
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Mounts /dev. `shm_size` is the option `size` of tmpfs(5) for /dev/shm. With `makes_devices` the payload has
/// CAP_MKNOD.
pub fn mount_dev(
    root: BorrowedFd<'_>,
    kind: Dev,
    shm_size: &str,
    makes_devices: bool,
) -> Result<()> {
    if kind == Dev::None {
        return Ok(());
    }
    let target = real_dir(root, "dev")?;
    match kind {
        Dev::Nodes => return make_nodes(&target),
        Dev::Host => return attach(clone_tree(Path::new("/dev"))?, &target, Path::new("/dev")),
        _ => {}
    }
    let dev = mount_minimal(&target, shm_size)?;
    if makes_devices { confine_devices(&dev) } else { Ok(()) }
}

/// Mounts a tmpfs with the default devices, a devpts, shared memory and message queues.
fn mount_minimal(target: &OwnedFd, shm_size: &str) -> Result<OwnedFd> {
    let dev =
        new_mount("tmpfs", &[("mode", "0755"), ("size", "64k")], attr::NOSUID | attr::NOEXEC)?;
    attach(&dev, target, Path::new("/dev"))?;
    make_nodes(&dev)?;
    let attach_at =
        |name: &str, mount| attach_below(mount, &dev, name, &Path::new("/dev").join(name));
    attach_at("pts", new_devpts()?)?;
    attach_at(
        "shm",
        new_mount("tmpfs", &[("mode", "1777"), ("size", shm_size)], attr::DATA_ONLY)?,
    )?;
    message_queues()?.map_or(Ok(()), |queues| attach_at("mqueue", queues))?;
    Ok(dev)
}

/// Gives each default device a mount of its own and makes the rest of /dev nodev, so that a device that the payload
/// makes does not work there.
fn confine_devices(dev: &OwnedFd) -> Result<()> {
    for (name, ..) in DEVICES {
        let shown = Path::new("/dev").join(name);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let node = openat(dev, name, flags, Mode::empty()).on("open", &shown)?;
        attach(clone_fd(&node, false, &shown)?, &node, &shown)?;
    }
    mount_setattr(dev.as_fd(), attr::NODEV, propagation::KEEP, false).on("mount_setattr", "/dev")
}

/// Makes the default devices and symbolic links. An existing file stays, unless it
/// is another device, which is an error.
fn make_nodes(dev: &OwnedFd) -> Result<()> {
    for (name, major, minor) in DEVICES {
        make_device(dev, name, makedev(major, minor))?;
    }
    for (name, link) in LINKS {
        match symlinkat(link, dev, name) {
            Err(Errno::EXIST) => {}
            made => made.on("symlink", Path::new("/dev").join(name))?,
        }
    }
    Ok(())
}

/// Mounts the message queues of this IPC namespace. The kernel refuses the mount (EPERM) to a user namespace
/// that does not own the IPC namespace. The mount is then a copy of the host's, or `None` if the host has none.
fn message_queues() -> Result<Option<OwnedFd>> {
    match new_mount("mqueue", &[], attr::DATA_ONLY) {
        Err(error) if error.errno() == Some(libc::EPERM) && !userns::is_initial()? => {
            clone_tree(Path::new("/dev/mqueue")).absent()
        }
        made => made.map(Some),
    }
}

fn new_devpts() -> Result<OwnedFd> {
    /// The number of the group `tty` in every distribution.
    const TTY_GROUP: &str = "5";
    let options = [("ptmxmode", "0666"), ("mode", "0620"), ("gid", TTY_GROUP)];
    let attributes = attr::NOSUID | attr::NOEXEC;
    match new_mount("devpts", &options, attributes) {
        // EINVAL: the user namespace does not map the group.
        Err(error) if error.errno() == Some(libc::EINVAL) && !userns::is_initial()? => {
            new_mount("devpts", &options[..2], attributes)
        }
        other => other,
    }
}

/// Makes a device node. The kernel refuses that (EPERM) in a user namespace, which gets a bind mount of the
/// host's node.
fn make_device(dev: &OwnedFd, name: &str, number: u64) -> Result<()> {
    let shown = Path::new("/dev").join(name);
    let mode = Mode::from_raw_mode(0o666);
    match mknodat(dev, name, FileType::CharacterDevice, mode, number) {
        Err(Errno::EXIST) => {
            let found = fstat(open_at(dev, name).on("open", &shown)?).on("stat", &shown)?;
            let kind = FileType::from_raw_mode(found.st_mode);
            if kind == FileType::CharacterDevice && found.st_rdev == number {
                Ok(())
            } else {
                Err(Error::new(format_args!("{}: is another file", shown.display())))
            }
        }
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
