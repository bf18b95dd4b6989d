//! The lower directories during a walk over the tree above them.

use std::os::fd::OwnedFd;

use jc_unshare::private_dir::Owner;
use jc_unshare::{Context, Result};
use rustix::fs::Stat;

use super::base::Base;
use crate::merged::{Lookup, Merged};
use crate::sys::Xattrs;

/// The place of a tree: its lower directories, and its path in the whole root.
pub struct Position<'a> {
    base: Option<&'a Base>,
    /// The components of the path in the root, and the number of them that `base` has too.
    at: &'a [u8],
    is_base_whole: bool,
}

impl<'a> Position<'a> {
    /// The root of a tree whose lower directories are unknown.
    pub const fn unknown() -> Self {
        Self { base: None, at: b"", is_base_whole: false }
    }

    /// A tree at a path, over lower directories of its own.
    pub const fn over(base: &'a Base, at: &'a [u8]) -> Self {
        Self { base: Some(base), at, is_base_whole: false }
    }

    /// A tree at a path, over the directory of that path in a whole root.
    pub const fn within(base: &'a Base, at: &'a [u8]) -> Self {
        Self { base: Some(base), at, is_base_whole: true }
    }

    /// The path of the tree with a slash at its end, or nothing.
    pub fn prefix(&self) -> Vec<u8> {
        if self.at.is_empty() { Vec::new() } else { [self.at, b"/"].concat() }
    }

    /// Opens the lower directories at the root of the tree.
    pub fn open(&self) -> Result<Below> {
        let Some(base) = self.base else { return Ok(Below::unknown()) };
        let mut merged = base.merged()?;
        if self.is_base_whole {
            for name in self.at.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
                merged.descend(name).on("read", crate::sys::as_path(self.at))?;
            }
        }
        Ok(Below { merged: Some(merged) })
    }
}

/// The directory in the lower directories at which a walk is.
pub struct Below {
    merged: Option<Merged>,
}

/// The file of the lower directories under a name.
pub enum Lower {
    /// The lower directories are not known.
    Unknown,
    Absent,
    Directory(OwnedFd),
    /// Another file, in the directory that has it.
    NonDirectory(OwnedFd, Stat),
}

impl Below {
    pub const fn unknown() -> Self {
        Self { merged: None }
    }

    pub fn lookup(&self, name: &[u8]) -> rustix::io::Result<Lower> {
        let Some(merged) = &self.merged else { return Ok(Lower::Unknown) };
        Ok(match merged.lookup(name)? {
            Lookup::Absent => Lower::Absent,
            Lookup::Directory(fd) => Lower::Directory(fd),
            Lookup::NonDirectory(parent, stat) => Lower::NonDirectory(parent, stat),
        })
    }

    /// Whether the lower directories are known to lack a name.
    pub fn lacks(&self, name: &[u8]) -> rustix::io::Result<bool> {
        Ok(matches!(self.lookup(name)?, Lower::Absent))
    }

    /// Looks up a directory of the tree, and enters it. The root of the tree is entered already.
    pub fn enter(&mut self, name: &[u8], is_root: bool) -> rustix::io::Result<Lower> {
        if is_root {
            let Some(merged) = &self.merged else { return Ok(Lower::Unknown) };
            let top = merged.top().map(|top| crate::sys::open_dir_to_read(top, ".")).transpose()?;
            return Ok(top.map_or(Lower::Absent, Lower::Directory));
        }
        let found = self.lookup(name)?;
        if let Some(merged) = &mut self.merged {
            merged.descend(name)?;
        }
        Ok(found)
    }

    pub fn leave(&mut self) -> rustix::io::Result<()> {
        self.merged.as_mut().map_or(Ok(()), Merged::ascend)
    }
}

impl Lower {
    /// Whether there is a directory, or may be one.
    pub const fn may_be_directory(&self) -> bool {
        matches!(self, Self::Unknown | Self::Directory(_))
    }

    /// Whether the root of a tree has the owner and mode of the root below, and no other attributes. Overlays begin with
    /// such a root, with another time and perhaps with fewer attributes. The root belongs to an ordinary user who mounts an
    /// overlay, if the owner below has no number in the user namespace of the mount.
    pub fn is_like_root(&self, stat: &Stat, xattrs: &Xattrs) -> Result<bool> {
        let Self::Directory(fd) = self else { return Ok(false) };
        let theirs = crate::sys::xattrs(fd).on("read", "/")?;
        if xattrs.iter().any(|pair| !theirs.contains(pair)) {
            return Ok(false);
        }
        let lower = rustix::fs::fstat(fd).on("stat", "/")?;
        let caller = rustix::process::geteuid();
        let same_owner = (stat.st_uid, stat.st_gid) == (lower.st_uid, lower.st_gid)
            || Owner::of(&lower)? == Owner::Unmapped
            || (stat.st_uid == caller.as_raw() && !caller.is_root());
        Ok(same_owner && stat.st_mode == lower.st_mode)
    }
}
