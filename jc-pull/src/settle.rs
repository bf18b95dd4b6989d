//! What a layer leaves to those beneath it: directories that it uses and does not list.
//!
//! overlayfs shows a merged directory with owner, mode, times and attributes of the uppermost layer
//! that has it, so there they must be what they were beneath.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};

use jc_unshare::{Error, Result, strerror};
use rustix::fs::{Gid, Mode, Uid, XattrFlags};
use rustix::io::Errno;

use crate::sys;
use crate::tar::Time;

/// Makes each of the `implied` directories of `own` as the uppermost of the layers `beneath`
/// (the nearest first) shows it.
pub fn settle(own: &OwnedFd, implied: &BTreeSet<Vec<u8>>, beneath: &[OwnedFd]) -> Result<()> {
    for path in implied {
        settle_one(own, path, beneath).map_err(|e| {
            let path = String::from_utf8_lossy(path);
            Error::new(format_args!("directory /{path}: {}", strerror(&e.into())))
        })?;
    }
    Ok(())
}

/// Whether a root is as it is where no layer lists it.
pub fn is_plain(root: &OwnedFd) -> rustix::io::Result<bool> {
    let stat = rustix::fs::fstat(root)?;
    let own = sys::xattr_names(root)?.iter().any(|key| !sys::is_overlay_xattr(key));
    Ok(!own
        && stat.st_mode & 0o7777 == 0o755
        && (stat.st_uid, stat.st_gid) == (0, 0)
        && sys::mtime(&stat) == Time::default())
}

fn settle_one(own: &OwnedFd, path: &[u8], beneath: &[OwnedFd]) -> rustix::io::Result<()> {
    let Look::Found(mine) = look(own, path)? else { return Ok(()) };
    // An opaque directory here, or on the way here, hides what is beneath.
    if is_hidden(own, path)? {
        return Ok(());
    }
    for layer in beneath {
        match look(layer, path)? {
            Look::Found(theirs) => return copy_metadata(&theirs, &mine),
            Look::Hidden => return Ok(()),
            Look::Missing => {}
        }
    }
    Ok(())
}

/// What one layer says of a path.
enum Look {
    Found(OwnedFd),
    /// It says nothing: a lower layer decides.
    Missing,
    /// Something that is no directory, or an opaque one, is on the way.
    Hidden,
}

fn parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|b| *b == b'/').filter(|c| !c.is_empty())
}

fn look(layer: &OwnedFd, path: &[u8]) -> rustix::io::Result<Look> {
    let mut at = sys::open_dir(layer, b".")?;
    let mut hidden = false;
    for part in parts(path) {
        hidden |= sys::is_opaque(&at);
        at = match sys::open_dir(&at, part) {
            Ok(fd) => fd,
            Err(Errno::NOENT) if hidden => return Ok(Look::Hidden),
            Err(Errno::NOENT) => return Ok(Look::Missing),
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(Look::Hidden),
            Err(e) => return Err(e),
        };
    }
    Ok(Look::Found(at))
}

fn is_hidden(layer: &OwnedFd, path: &[u8]) -> rustix::io::Result<bool> {
    let mut at = sys::open_dir(layer, b".")?;
    for part in parts(path) {
        if sys::is_opaque(&at) {
            return Ok(true);
        }
        at = sys::open_dir(&at, part)?;
    }
    Ok(sys::is_opaque(&at))
}

fn copy_metadata(from: &OwnedFd, to: &OwnedFd) -> rustix::io::Result<()> {
    let stat = rustix::fs::fstat(from)?;
    rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
    for key in sys::xattr_names(from)? {
        if !sys::is_overlay_xattr(&key) {
            let value = sys::xattr(from.as_fd(), &key)?;
            rustix::fs::fsetxattr(to, key.as_slice(), &value, XattrFlags::empty())?;
        }
    }
    rustix::fs::futimens(to, &sys::timestamps(sys::mtime(&stat)))
}
