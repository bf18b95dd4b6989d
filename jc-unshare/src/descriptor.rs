//! Close-on-exec descriptors of directories and of files for path lookups.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::path::Arg;

use crate::error::{Absent, Context, Result};
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

/// Opens a regular file for reading. Other types of files are errors. The open of a FIFO does not wait with these flags
/// (fifo(7)), and the open of a device has no effect.
pub fn open_regular(dir: impl AsFd, path: impl Arg, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(openat(dir, path, flags, Mode::empty())?);
    check_regular(&fstat(&file)?).map(|()| file)
}

/// An error if a file is not a regular one.
pub fn check_regular(stat: &Stat) -> io::Result<()> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(()),
        _ => Err(io::Error::other("not a regular file")),
    }
}

/// Whether two files are the same, by device and inode number.
pub fn is_same(one: &Stat, other: &Stat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

/// Whether a name in a directory still leads to an open file. Another process may have removed the name, or given it to
/// another file, since the file was opened. `shown` is the path in an error.
pub fn is_named(
    dir: impl AsFd,
    name: impl Arg,
    file: impl AsFd,
    shown: impl AsRef<Path>,
) -> Result<bool> {
    let shown = shown.as_ref();
    let own = fstat(file).on("stat", shown)?;
    let found = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).on("stat", shown).absent()?;
    Ok(found.is_some_and(|found| is_same(&found, &own)))
}
