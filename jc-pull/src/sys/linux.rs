//! Device nodes, whiteouts, and attributes of files that cannot be opened, as Linux has them.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use jc_unshare::descriptor::open_at;
use nix::errno::Errno as NixErrno;
use nix::sys::ptrace;
use nix::unistd::Pid;
use rustix::fs::{Dev, FileType, Mode, OFlags, ResolveFlags, Stat, XattrFlags};
use rustix::io::{Errno, Result};
use rustix::process::{WaitId, WaitIdOptions, waitid};

pub use jc_unshare::info::inherit_fd;

use super::{Traced, Xattrs, file_type, read_xattrs};
use crate::tar::{EntryKind, acl};

pub fn mknod(fd: impl AsFd, name: &[u8], kind: FileType, mode: Mode, dev: Dev) -> Result<()> {
    rustix::fs::mknodat(fd, name, kind, mode, dev)
}

/// Makes a whiteout of overlayfs, a character device 0:0.
pub fn make_whiteout(fd: impl AsFd, name: &[u8]) -> Result<()> {
    rustix::fs::mknodat(fd, name, FileType::CharacterDevice, Mode::empty(), 0)
}

pub fn is_whiteout(stat: &Stat) -> bool {
    file_type(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Whether an entry would be taken for a whiteout.
pub fn forges_whiteout(kind: &EntryKind, _: u32) -> bool {
    matches!(kind, EntryKind::Char(0, 0))
}

/// Removes the access control lists that a directory has from its parent.
pub fn clear_acls(fd: &OwnedFd) -> Result<()> {
    for list in [acl::ACCESS, acl::DEFAULT] {
        match rustix::fs::fremovexattr(fd, list) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            other => return other,
        }
    }
    Ok(())
}

/// Opens a directory below `root` for path lookups. `ELOOP` if a component is a symbolic link.
pub fn open_beneath(root: &OwnedFd, parts: &[&[u8]]) -> Result<OwnedFd> {
    let path = if parts.is_empty() { b".".to_vec() } else { parts.join(&b'/') };
    let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)
}

/// Opens a file with O_PATH, and returns a path in procfs that leads to it: a descriptor with O_PATH has
/// no attribute calls.
fn refer(parent: impl AsFd, name: &[u8]) -> Result<(OwnedFd, String)> {
    let fd = open_at(parent, name)?;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    Ok((fd, path))
}

/// All attributes of a file that may be unreadable.
pub fn all_xattrs_at(parent: impl AsFd, name: &[u8]) -> Result<Xattrs> {
    let (_fd, path) = refer(parent, name)?;
    read_xattrs(
        |list| rustix::fs::listxattr(path.as_str(), list),
        |key, to| rustix::fs::getxattr(path.as_str(), key, to),
    )
}

/// Sets attributes of a file that may be unreadable.
pub fn set_xattrs_at(parent: impl AsFd, name: &[u8], xattrs: &Xattrs) -> Result<()> {
    let (_fd, path) = refer(parent, name)?;
    xattrs.iter().try_for_each(|(key, value)| {
        rustix::fs::setxattr(path.as_str(), key.as_slice(), value, XattrFlags::empty())
    })
}

/// Writes all data of a file system to the disk: one call for the many files of a layer.
pub fn sync(fd: &OwnedFd) -> Result<()> {
    rustix::fs::syncfs(fd)
}

/// The option of jc-unshare for a user namespace in which this user is root: with all subordinate IDs, or
/// with the user's own ID alone, if that is enough. The result is `None` if neither is possible.
pub fn id_map(own_is_enough: bool) -> jc_unshare::Result<Option<&'static str>> {
    Ok(match (jc_unshare::has_ranges()?, own_is_enough) {
        (true, _) => Some("--map-auto"),
        (false, true) => Some("--map-root"),
        (false, false) => None,
    })
}

fn pid(thread: u32) -> Pid {
    // The kernel has no larger numbers (PID_MAX_LIMIT).
    Pid::from_raw(i32::try_from(thread).unwrap_or(i32::MAX))
}

/// Begins to stop a thread. The thread resumes if this process dies. `EPERM` if another process traces the thread, or
/// this one may not.
pub fn trace_begin(thread: u32) -> std::io::Result<()> {
    ptrace::seize(pid(thread), ptrace::Options::empty())?;
    match ptrace::interrupt(pid(thread)) {
        // The thread has ended, which `trace_state` shows.
        Err(NixErrno::ESRCH) => Ok(()),
        other => Ok(other?),
    }
}

/// The state of a thread that this process traces, without a wait. A stop keeps its signal for the thread, and a thread
/// that has ended is reaped.
pub fn trace_state(thread: u32) -> std::io::Result<Traced> {
    let raw = i32::try_from(thread).ok().and_then(rustix::process::Pid::from_raw);
    let Some(pid) = raw else { return Ok(Traced::Ended) };
    let ended = WaitIdOptions::NOHANG | WaitIdOptions::EXITED;
    match waitid(WaitId::Pid(pid), ended | WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT) {
        Ok(None) => Ok(Traced::Runs),
        Ok(Some(status)) if status.trapped() || status.stopped() => Ok(Traced::Stopped),
        Ok(Some(_)) => {
            waitid(WaitId::Pid(pid), ended)?;
            Ok(Traced::Ended)
        }
        Err(Errno::CHILD) => Ok(Traced::Ended),
        Err(e) => Err(e.into()),
    }
}
