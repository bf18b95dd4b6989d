//! The changes of a tree to the lower directories.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use jc_unshare::{Context, Result};
use rustix::fs::Stat;

use super::delta::{Directory, Node, Visitor, walk};
use super::difference::{Difference, compare};
use super::lookup::{Below, Lower, Position};
use super::marks::Marks;
use super::pattern::Patterns;
use crate::sys;

/// The kind of a change. A directory that is removed and made again is deleted and added.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    Deleted,
    Modified,
    Added,
}

/// A change of one path.
#[derive(Clone)]
pub struct Change {
    /// The path from the root, without a slash at its beginning. The root itself is `.`.
    pub path: Vec<u8>,
    pub kind: Kind,
    /// The metadata of the new file. Absent for a deleted one.
    pub stat: Option<Stat>,
}

/// Lists the changes of a tree at its position, except the `skipped` paths. The order is that of the walk.
pub fn list(
    root: &OwnedFd,
    marks: Marks,
    position: &Position<'_>,
    skipped: &BTreeSet<Vec<u8>>,
    patterns: &Patterns,
) -> Result<Vec<Change>> {
    let mut lister = Lister {
        marks,
        prefix: position.prefix(),
        below: position.open()?,
        patterns,
        frames: Vec::new(),
        changes: Vec::new(),
    };
    walk(root, marks, skipped, &mut lister)?;
    Ok(lister.changes)
}

struct Lister<'a> {
    marks: Marks,
    prefix: Vec<u8>,
    below: Below,
    patterns: &'a Patterns,
    frames: Vec<Frame>,
    changes: Vec<Change>,
}

/// A directory on the way to the current one.
struct Frame {
    /// Whether the tree has entries in the directory, which may be the reason for another modification time.
    has_entries: bool,
    /// The difference from the lower directory, if the tree changes one.
    difference: Difference,
}

impl Lister<'_> {
    fn add(&mut self, path: &[u8], kind: Kind, stat: Option<&Stat>) {
        let whole = [self.prefix.as_slice(), path].concat();
        let path = match whole.strip_suffix(b"/").unwrap_or(&whole) {
            b"" => b".",
            other => other,
        };
        if self.patterns.match_path(path) {
            self.changes.push(Change { path: path.to_vec(), kind, stat: stat.copied() });
        }
    }

    fn set_has_entries(&mut self) {
        if let Some(frame) = self.frames.last_mut() {
            frame.has_entries = true;
        }
    }
}

impl Visitor for Lister<'_> {
    fn directory(&mut self, directory: &Directory<'_>) -> Result<()> {
        self.set_has_entries();
        let Directory { path, name, stat, is_opaque, .. } = directory;
        let is_root = path.is_empty();
        let lower = self.below.enter(name, is_root).on("read", sys::as_path(path))?;
        let mut difference = Difference::None;
        match &lower {
            _ if is_root => {
                let all = sys::all_xattrs(directory.fd).on("read", "/")?;
                if !lower.is_like_root(stat, &self.marks.shown(all)?)? {
                    difference = Difference::Metadata;
                }
            }
            Lower::Directory(fd) if !is_opaque => difference = compare(directory, fd, self.marks)?,
            Lower::Unknown | Lower::Absent => self.add(path, Kind::Added, Some(stat)),
            Lower::Directory(_) | Lower::NonDirectory(..) => {
                self.add(path, Kind::Deleted, None);
                self.add(path, Kind::Added, Some(stat));
            }
        }
        self.frames.push(Frame { has_entries: false, difference });
        Ok(())
    }

    fn leave(&mut self, directory: &Directory<'_>) -> Result<()> {
        self.below.leave().on("read", sys::as_path(directory.path))?;
        let Some(frame) = self.frames.pop() else { return Ok(()) };
        match frame.difference {
            Difference::Metadata => {}
            Difference::Time if !frame.has_entries => {}
            _ => return Ok(()),
        }
        self.add(directory.path, Kind::Modified, Some(directory.stat));
        Ok(())
    }

    fn file(&mut self, file: &Node<'_>) -> Result<()> {
        self.set_has_entries();
        let kind = match self.below.lookup(file.name).on("read", sys::as_path(file.path))? {
            Lower::Absent | Lower::Unknown => Kind::Added,
            Lower::Directory(_) | Lower::NonDirectory(..) => Kind::Modified,
        };
        self.add(file.path, kind, Some(file.stat));
        Ok(())
    }

    fn whiteout(&mut self, path: &[u8], name: &[u8]) -> Result<()> {
        self.set_has_entries();
        if !self.below.lacks(name).on("read", sys::as_path(path))? {
            self.add(path, Kind::Deleted, None);
        }
        Ok(())
    }

    fn passed_over(&mut self) {
        self.set_has_entries();
    }
}
