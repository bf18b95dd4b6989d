//! The difference between a directory and the lower one of the same path.

use std::os::fd::OwnedFd;

use jc_unshare::{Context, Result};
use rustix::fs::Stat;

use super::delta::Directory;
use super::marks::Marks;
use crate::sys;

/// The most important difference.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Difference {
    None,
    /// The modification time, which every entry of the directory may have changed.
    Time,
    /// Owner, mode or attributes.
    Metadata,
}

/// Compares the metadata of a directory with that of the lower one.
pub fn compare(directory: &Directory<'_>, lower: &OwnedFd, marks: Marks) -> Result<Difference> {
    let shown = sys::as_path(directory.path);
    let theirs = rustix::fs::fstat(lower).on("stat", shown)?;
    let (ours, key) = (directory.stat, |s: &Stat| (s.st_mode, s.st_uid, s.st_gid));
    let attributes = |fd: &OwnedFd| {
        let all = sys::all_xattrs(fd).on("read", shown)?;
        marks.shown(all).map_err(|e| e.context(shown.display()))
    };
    Ok(if key(ours) != key(&theirs) || attributes(directory.fd)? != attributes(lower)? {
        Difference::Metadata
    } else if sys::mtime(ours) != sys::mtime(&theirs) {
        Difference::Time
    } else {
        Difference::None
    })
}
