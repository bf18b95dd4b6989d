//! The parts of portable modules that differ on Linux.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, IFlags, Mode, OFlags, ResolveFlags, chmod, fstat, ioctl_getflags,
    ioctl_setflags, openat, openat2, statat,
};
use rustix::io::{Errno, Result};

use super::events::StatusFd;
pub use super::hints::{old_kernel, surroundings};
use super::procfs::namespace;
pub use super::sys::{exit, ignore_sigpipe, restore_sigchld};
use super::{allocator, sys};
use crate::Tool;
use crate::error::Absent;

/// The largest limit of descriptors that setrlimit(2) accepts, where that is not the hard limit.
pub const MAX_DESCRIPTORS: Option<u64> = None;

/// Flags for path lookups only.
pub const LOOKUP: OFlags = OFlags::PATH;

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The inode number of the initial user namespace (PROC_USER_INIT_INO of Linux' proc_ns.h).
const INITIAL: u64 = 0xEFFF_FFFD;

/// Maps the pages that a start uses.
pub fn map_ahead() {
    sys::map_ahead(allocator::arena());
}

/// Lets a failure of this process be an event on the descriptor of that number, if it can be written.
pub fn report_failure_to(tool: Tool, number: &OsStr) {
    let number = number.to_str().and_then(|word| word.parse().ok());
    // A descriptor that cannot be written is an error of the same command line.
    let opened = number.and_then(|number| StatusFd::open(tool, number).ok());
    opened.map(StatusFd::reporting_failure);
}

/// Opens a directory for reading. `EBUSY`: something is mounted on the directory.
pub fn open_directory(parent: impl AsFd, name: &[u8]) -> Result<OwnedFd> {
    let flags = DIRECTORY | OFlags::RDONLY;
    match openat2(parent, name, flags, Mode::empty(), ResolveFlags::NO_XDEV) {
        Err(Errno::XDEV) => Err(Errno::BUSY),
        opened => opened,
    }
}

/// Gives a directory that cannot be opened for reading the mode `u+rwx`. ELOOP: the name is a symbolic link.
pub fn allow_owner(parent: &OwnedFd, name: &[u8]) -> Result<()> {
    let fd = openat(parent, name, DIRECTORY | OFlags::PATH, Mode::empty())?;
    let mode = Mode::from_raw_mode(fstat(&fd)?.st_mode);
    // fchmod(2) takes no O_PATH descriptor, and fchmodat2(2) comes with Linux 6.6.
    chmod(format!("/proc/self/fd/{}", fd.as_raw_fd()), mode | Mode::RWXU)
}

/// Clears the attributes of chattr(1) that prevent the removal of `name`. A payload with CAP_LINUX_IMMUTABLE may
/// have set them. False: none is set, or this process has no permission to clear them.
pub fn allow_change(directory: &OwnedFd, name: &[u8]) -> bool {
    let forbids = IFlags::IMMUTABLE | IFlags::APPEND;
    let clear = |fd: &OwnedFd| match ioctl_getflags(fd) {
        Ok(flags) if flags.intersects(forbids) => ioctl_setflags(fd, flags - forbids).is_ok(),
        _ => false,
    };
    let open = || {
        let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile | FileType::Directory => {}
            _ => return Err(Errno::NOTTY),
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        openat(directory, name, flags, Mode::empty())
    };
    let is_open = clear(directory);
    open().is_ok_and(|fd| clear(&fd)) || is_open
}

/// Whether the user namespace of this process is the initial one, by the inode number of its file in
/// `/proc/self/ns`. ENOENT: there is no procfs on /proc.
pub fn is_initial_user_namespace() -> crate::Result<bool> {
    match namespace("user").absent()? {
        Some(number) => Ok(number == INITIAL),
        // A kernel without user namespaces has only the files of other kinds, like the mount namespace.
        None => namespace("mnt").map(|_| true),
    }
}
