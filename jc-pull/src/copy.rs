//! Copies of single files, as overlayfs makes them for a change in an upper layer.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Uid, XattrFlags};
use rustix::io::{Errno, Result};

use crate::sys;

/// Copies owner, mode, attributes and modification time. `EPERM` if the caller may not give files away.
pub fn copy_metadata(from: impl AsFd, to: impl AsFd) -> Result<()> {
    let (from, to) = (from.as_fd(), to.as_fd());
    let stat = rustix::fs::fstat(from)?;
    rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
    for (key, value) in sys::xattrs(from)? {
        rustix::fs::fsetxattr(to, key.as_slice(), &value, XattrFlags::empty())?;
    }
    rustix::fs::futimens(to, &sys::timestamps(sys::mtime(&stat)))
}

/// Copies a file that is no directory into another directory, under the same name. `ENOENT` if the file
/// is gone.
pub fn copy_up(from: &OwnedFd, to: &OwnedFd, name: &[u8], stat: &Stat) -> std::io::Result<()> {
    let kind = sys::file_type(stat);
    if kind != FileType::RegularFile {
        let mode = Mode::from_raw_mode(stat.st_mode);
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        if kind == FileType::Symlink {
            let text = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(text.as_c_str(), to, name)?;
        } else {
            sys::mknod(to, name, kind, mode, stat.st_rdev)?;
        }
        rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        if kind != FileType::Symlink {
            rustix::fs::chmodat(to, name, mode, AtFlags::empty())?;
        }
        sys::set_xattrs_at(to, name, &sys::xattrs_at(from, name)?)?;
        let times = sys::timestamps(sys::mtime(stat));
        return rustix::fs::utimensat(to, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(Into::into);
    }
    let source = sys::open_file(from, name)?.ok_or(Errno::NOENT)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let target = File::from(rustix::fs::openat(to, name, flags, Mode::RUSR)?);
    copy_content(&source, &target)?;
    copy_metadata(&source, &target).map_err(Into::into)
}

/// Copies the content of a file, and leaves the holes out (lseek(2), `SEEK_DATA`).
fn copy_content(source: &File, target: &File) -> std::io::Result<()> {
    let length = source.metadata()?.len();
    let mut at = 0;
    while at < length {
        let start = match rustix::fs::seek(source, SeekFrom::Data(at)) {
            // Only a hole is left.
            Err(Errno::NXIO) => break,
            // The file system does not know its holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => at,
            found => found?,
        };
        let end = match rustix::fs::seek(source, SeekFrom::Hole(start)) {
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => length,
            found => found?,
        };
        rustix::fs::seek(source, SeekFrom::Start(start))?;
        rustix::fs::seek(target, SeekFrom::Start(start))?;
        let piece = &mut source.take(end - start);
        if std::io::copy(piece, &mut &*target)? == 0 {
            break;
        }
        at = end;
    }
    target.set_len(length)
}
