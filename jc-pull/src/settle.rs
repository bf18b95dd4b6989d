//! What a layer leaves to those beneath it: directories that it uses and does not list.
//!
//! overlayfs shows a merged directory with owner, mode, times and attributes of the uppermost layer
//! that has it, so there they must be what they were beneath.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use jc_unshare::{Error, Result, strerror};

use crate::beneath::{Seen, copy_metadata, is_hidden, parts, see};
use crate::sys;
use crate::tar::Time;

/// Makes each of the `implied` directories of `own` as the uppermost of the layers `beneath`
/// (the nearest first) shows it. Not if one is a symbolic link there: then it gives `false`, and the
/// layer must be unpacked again, following it.
pub fn settle(own: &OwnedFd, implied: &BTreeSet<Vec<u8>>, beneath: &[OwnedFd]) -> Result<bool> {
    for path in implied {
        let settled = settle_one(own, path, beneath).map_err(|e| {
            let path = String::from_utf8_lossy(path);
            Error::new(format_args!("directory /{path}: {}", strerror(&e.into())))
        })?;
        if !settled {
            return Ok(false);
        }
    }
    Ok(true)
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

fn settle_one(own: &OwnedFd, path: &[u8], beneath: &[OwnedFd]) -> rustix::io::Result<bool> {
    // An opaque directory here, or on the way here, hides what is beneath.
    if is_hidden(own, path)? {
        return Ok(true);
    }
    let seen = see(beneath, path)?;
    let name = parts(path).last().unwrap_or_default();
    if seen.link_text(name)?.is_some() {
        return Ok(false);
    }
    match seen {
        Seen::Directory(theirs) => {
            let mut mine = sys::open_dir(own, b".")?;
            for part in parts(path) {
                mine = sys::open_dir(&mine, part)?;
            }
            copy_metadata(&theirs, &mine).map(|()| true)
        }
        Seen::Nothing | Seen::Other(..) => Ok(true),
    }
}
