//! The layers beneath one, as overlayfs would show them.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, XattrFlags};
use rustix::io::{Errno, Result};

use crate::sys;

/// What is at a path.
pub enum Seen {
    /// Nothing, or something hides it.
    Nothing,
    /// A directory, of that layer which decides about its owner and mode.
    Directory(OwnedFd),
    /// Anything else, in the directory of that layer which shows it.
    Other(OwnedFd, Stat),
}

impl Seen {
    /// The text, if it is a symbolic link.
    pub fn link_text(&self, name: &[u8]) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Other(directory, stat) if sys::file_type(stat) == FileType::Symlink => {
                let text = rustix::fs::readlinkat(directory, name, Vec::new())?;
                Ok(Some(text.into_bytes()))
            }
            _ => Ok(None),
        }
    }
}

/// Looks a path up in the layers, the nearest first. Its directories are taken as they are named:
/// symbolic links among them have been followed before.
pub fn see(layers: &[OwnedFd], path: &[u8]) -> Result<Seen> {
    for layer in layers {
        match look(layer, path)? {
            Look::Seen(seen) => return Ok(seen),
            Look::Hidden => return Ok(Seen::Nothing),
            Look::Missing => {}
        }
    }
    Ok(Seen::Nothing)
}

/// What one layer says of a path.
enum Look {
    Seen(Seen),
    /// It says nothing: a lower layer decides.
    Missing,
    /// Something that is no directory, or an opaque one, is on the way.
    Hidden,
}

/// The components of a path.
pub fn parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|b| *b == b'/').filter(|c| !c.is_empty())
}

fn look(layer: &OwnedFd, path: &[u8]) -> Result<Look> {
    let mut at = sys::open_dir(layer, b".")?;
    let mut parts = parts(path).peekable();
    let mut hidden = false;
    while let Some(part) = parts.next() {
        hidden |= sys::is_opaque(&at);
        at = match sys::open_dir(&at, part) {
            Ok(fd) => fd,
            Err(Errno::NOENT) if hidden => return Ok(Look::Hidden),
            Err(Errno::NOENT) => return Ok(Look::Missing),
            Err(Errno::NOTDIR | Errno::LOOP) if parts.peek().is_none() => return other(at, part),
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(Look::Hidden),
            Err(e) => return Err(e),
        };
    }
    Ok(Look::Seen(Seen::Directory(at)))
}

fn other(directory: OwnedFd, name: &[u8]) -> Result<Look> {
    let stat = sys::stat(&directory, name)?;
    if sys::is_whiteout(&stat) {
        return Ok(Look::Hidden);
    }
    Ok(Look::Seen(Seen::Other(directory, stat)))
}

/// Whether the directories on the way to `path` in `layer`, or that directory itself, hide what is
/// beneath them.
pub fn is_hidden(layer: &OwnedFd, path: &[u8]) -> Result<bool> {
    let mut at = sys::open_dir(layer, b".")?;
    for part in parts(path) {
        if sys::is_opaque(&at) {
            return Ok(true);
        }
        at = sys::open_dir(&at, part)?;
    }
    Ok(sys::is_opaque(&at))
}

/// Makes `to` as `from` is: owner, mode, attributes and time.
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

/// Copies what is no directory into another directory, under its own name.
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
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let source = File::from(rustix::fs::openat(from, name, flags, Mode::empty())?);
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let target = File::from(rustix::fs::openat(to, name, flags, Mode::RUSR)?);
    std::io::copy(&mut &source, &mut &target)?;
    copy_metadata(&source, &target).map_err(Into::into)
}
