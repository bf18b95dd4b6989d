//! Close-on-exec descriptors of directories and of files for path lookups.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, Stat, openat};
use rustix::path::Arg;

use crate::error::{Context, Result};
use crate::platform;

/// The flags of path lookups: O_PATH on Linux (open(2)).
const LOOKUP: OFlags = platform::LOOKUP.union(OFlags::CLOEXEC);

/// Opens a directory for path lookups. ENOTDIR: the path leads to another file.
pub fn open_dir(path: &Path) -> Result<OwnedFd> {
    openat(CWD, path, LOOKUP | OFlags::DIRECTORY, Mode::empty()).on("open", path)
}

/// Opens a directory below another one for path lookups. ENOTDIR or ELOOP: the last component is a symbolic link or
/// another file.
pub fn open_dir_at(dir: impl AsFd, name: impl Arg) -> rustix::io::Result<OwnedFd> {
    openat(dir, name, LOOKUP | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
}

/// Opens a directory below another one for reading and for locks (flock(2)). ENOTDIR or ELOOP: the last component is
/// a symbolic link or another file.
pub fn open_dir_to_read(dir: impl AsFd, name: impl Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

/// Opens a file of any type below a directory for path lookups. If the last component is a symbolic link, the
/// descriptor is that of the link.
pub fn open_at(dir: impl AsFd, name: impl Arg) -> rustix::io::Result<OwnedFd> {
    openat(dir, name, LOOKUP | OFlags::NOFOLLOW, Mode::empty())
}

/// Whether two files are the same, by device and inode number.
pub fn is_same(one: &Stat, other: &Stat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}
