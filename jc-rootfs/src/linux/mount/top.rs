//! The top of the mount namespace, which is above the root of a process in a chroot(2).
//!
//! pivot_root(2) replaces the root of the process alone. In a chroot the rest of the namespace would stay above the new
//! root, and a payload with CAP_SYS_CHROOT would reach it by `..` (chroot(2)).

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use jc_unshare::capability::SYS_CHROOT;
use jc_unshare::descriptor::open_dir;
use jc_unshare::hints::capable;
use jc_unshare::sys::{clone, setns};
use jc_unshare::{Context, Result};
use nix::libc;
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, open, openat, statx};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{PidfdFlags, chroot, fchdir, getpid, pidfd_open};

use crate::linux::sys::{mount_setattr, propagation};

/// The top of a mount namespace in which the root of this process is another directory.
pub struct Top(OwnedFd);

impl Top {
    /// Finds the top: setns(2) makes it the root of a process that enters its own mount namespace. `None`: the root of
    /// this process is the top, or this process has no CAP_SYS_CHROOT, which its payload lacks then too.
    pub fn find() -> Result<Option<Self>> {
        let (root, directory) = (open_dir(Path::new("/"))?, open_dir(Path::new("."))?);
        match setns(own_namespace()?.as_fd(), clone::NEWNS) {
            Err(e) if e.raw_os_error() == Some(libc::EPERM) && !capable(SYS_CHROOT) => {
                return Ok(None);
            }
            other => other.on("setns", "the own mount namespace")?,
        }
        let top = open_dir(Path::new("/"))?;
        let is_top = identity(&top)? == identity(&root)?;
        if !is_top {
            enter(&root)?;
        }
        fchdir(&directory).op("fchdir")?;
        Ok((!is_top).then_some(Self(top)))
    }

    fn make_private(&self) -> Result<()> {
        mount_setattr(self.0.as_fd(), 0, propagation::PRIVATE, true).op("make all mounts private")
    }

    /// Opens a file by its path from the top.
    pub fn open(&self, path: &Path) -> Result<OwnedFd> {
        let below = path.strip_prefix("/").unwrap_or(path);
        openat(&self.0, below, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).on("open", path)
    }

    /// Makes the top the root of this process.
    pub fn enter(&self) -> Result<()> {
        enter(&self.0)
    }
}

/// Makes all mounts private: later mounts must not propagate to the host. Returns the top of the namespace, if the root
/// of this process is below.
pub fn make_private() -> Result<Option<Top>> {
    let top = Top::find()?;
    match &top {
        Some(top) => top.make_private()?,
        None => {
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            mount_change("/", private).on("make private", "/")?;
        }
    }
    Ok(top)
}

/// A descriptor of this process, which needs no procfs, or of its mount namespace, where a seccomp filter denies
/// pidfd_open(2).
fn own_namespace() -> Result<OwnedFd> {
    match pidfd_open(getpid(), PidfdFlags::empty()) {
        Err(Errno::NOSYS | Errno::PERM) => {
            let path = "/proc/self/ns/mnt";
            open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).on("open", path)
        }
        pidfd => pidfd.op("pidfd_open"),
    }
}

fn enter(directory: &OwnedFd) -> Result<()> {
    fchdir(directory).op("fchdir")?;
    chroot(".").op("chroot")
}

/// The mount and the inode of a directory.
fn identity(directory: &OwnedFd) -> Result<(u64, u64)> {
    let flags = StatxFlags::MNT_ID | StatxFlags::INO;
    let stat = statx(directory, "", AtFlags::EMPTY_PATH, flags).op("statx")?;
    Ok((stat.stx_mnt_id, stat.stx_ino))
}
