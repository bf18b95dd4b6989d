//! Small steps on directory fds that several modules take. Names here are single path components.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::{Errno, Result};

use crate::tar::Time;

/// What makes a directory hide those beneath it (overlayfs.rst, "Whiteouts and opaque directories").
pub const OPAQUE: &str = "trusted.overlay.opaque";
/// Tells overlayfs that a directory may hold whiteouts even where it merges with none; an empty
/// value is "origin unknown".
pub const ORIGIN: &str = "trusted.overlay.origin";

/// Different each time, on every platform; good for names and jitter, not for secrets.
pub fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// Makes a whole file system durable: one call for a layer's many files.
#[cfg(target_os = "linux")]
pub fn sync(fd: &OwnedFd) -> Result<()> {
    rustix::fs::syncfs(fd)
}

/// Makes all file systems durable.
#[cfg(not(target_os = "linux"))]
pub fn sync(_: &OwnedFd) -> Result<()> {
    rustix::fs::sync();
    Ok(())
}

/// Opens a directory in a directory, never through a symbolic link.
pub fn open_dir(parent: impl AsFd, name: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Opens a name, whatever it is, only to refer to it.
pub fn open_path(parent: impl AsFd, name: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// stat(2) of a name, not following it.
pub fn stat(parent: impl AsFd, name: &[u8]) -> Result<Stat> {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// What a stat(2) says the thing is.
pub fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Whether this is how overlayfs says that a name is gone: a character device 0:0.
pub fn is_whiteout(stat: &Stat) -> bool {
    file_type(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Whether the directory hides those beneath it.
pub fn is_opaque(directory: impl AsFd) -> bool {
    let mut value = [0; 2];
    matches!(rustix::fs::fgetxattr(directory, OPAQUE, &mut value[..]), Ok(1) if value[0] == b'y')
}

/// Modification time only; the access time stays what it is.
pub fn timestamps(mtime: Time) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec {
            tv_sec: mtime.seconds,
            tv_nsec: i64::from(mtime.nanoseconds),
        },
    }
}

/// The modification time that stat(2) tells.
pub fn mtime(stat: &Stat) -> Time {
    Time {
        seconds: stat.st_mtime,
        nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
    }
}

/// Whether overlayfs itself keeps something there.
pub fn is_overlay_xattr(key: &[u8]) -> bool {
    key.starts_with(b"trusted.overlay.") || key.starts_with(b"user.overlay.")
}

/// The names of an open file's extended attributes; none where the file system knows none.
pub fn xattr_names(fd: impl AsFd) -> Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    loop {
        let length = match rustix::fs::flistxattr_query(fd.as_fd()) {
            Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            other => other?,
        };
        names.resize(length, 0);
        match rustix::fs::flistxattr(fd.as_fd(), &mut names[..]) {
            Err(Errno::RANGE) => {}
            length => {
                names.truncate(length?);
                break;
            }
        }
    }
    let names = names.split(|b| *b == 0).filter(|name| !name.is_empty());
    Ok(names.map(<[u8]>::to_vec).collect())
}

/// One extended attribute's value.
pub fn xattr(fd: impl AsFd, key: &[u8]) -> Result<Vec<u8>> {
    let mut value = vec![0; 64 << 10];
    let length = rustix::fs::fgetxattr(fd, key, &mut value[..])?;
    value.truncate(length);
    Ok(value)
}

/// Removes a name, and all beneath it if it is a directory. That it is not there is no error.
pub fn remove_all(parent: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(Errno::NOENT) => return Ok(()),
        other => return other,
    }
    let directory = match open_dir(parent, name) {
        Err(Errno::ACCESS) => {
            // Its mode came from an image: an owner that is not root shut itself out.
            rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
            open_dir(parent, name)?
        }
        other => other?,
    };
    for_each_name(&directory, |child| match remove_all(directory.as_fd(), child) {
        Err(Errno::ACCESS) => {
            rustix::fs::fchmod(&directory, Mode::RWXU)?;
            remove_all(directory.as_fd(), child)
        }
        other => other,
    })?;
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// Calls `visit` with each name in the directory but `.` and `..`.
pub fn for_each_name(
    directory: impl AsFd,
    mut visit: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        match CStr::to_bytes(entry.file_name()) {
            b"." | b".." => {}
            name => visit(name)?,
        }
    }
    Ok(())
}
