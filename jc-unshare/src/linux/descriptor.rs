//! Close-on-exec descriptors for path lookups (O_PATH in open(2)).

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, Stat, openat};

use crate::error::{Context, Result};

const LOOKUP: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// Opens a directory by path. ENOTDIR: the path leads to another file.
pub fn open_dir(path: &Path) -> Result<OwnedFd> {
    openat(CWD, path, LOOKUP | OFlags::DIRECTORY, Mode::empty()).on("open", path)
}

/// Opens a directory below another one. ENOTDIR or ELOOP: the last component is a symbolic link or another
/// file.
pub fn open_dir_at(dir: impl AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    openat(dir, name, LOOKUP | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
}

/// Opens a file of any type below a directory. If the last component is a symbolic link, the descriptor
/// holds the link.
pub fn open_at(dir: impl AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    openat(dir, name, LOOKUP | OFlags::NOFOLLOW, Mode::empty())
}

/// Whether two files are the same, by device and inode number.
pub fn is_same(one: &Stat, other: &Stat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}
