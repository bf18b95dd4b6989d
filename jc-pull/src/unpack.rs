//! The entries of a layer, unpacked into a directory in the format of overlayfs (OCI image-spec layer.md;
//! the kernel's overlayfs.rst).

mod link;
mod metadata;
mod nodes;
pub mod path;
mod state;

use std::io::BufRead;
use std::os::fd::OwnedFd;

use jc_unshare::{Error, Result, strerror};
use rustix::fs::{FileType, makedev};

use self::path::{AUFS, OPAQUE_MARK, WHITEOUT, components, is_aufs};
use self::state::{State, unsaved};
use crate::implied::Implied;
use crate::limits::Allowance;
use crate::sums::Sums;
use crate::sys;
use crate::tar::{Entry, EntryKind, Reader};
use crate::tree::Tree;

/// The outcome of unpacking a layer.
pub enum Unpacked {
    Complete {
        /// The directories that the layer uses and does not list: the lower layers decide about them.
        implied: Implied,
        /// Whether the layer has copies of files in lower layers.
        copied_from_lower: bool,
    },
    /// A hard link leads to a file that only a lower layer can have, and the lower layers are unknown.
    NeedsLower,
}

/// The layers below one.
#[derive(Clone, Copy)]
pub enum Lower<'a> {
    /// The lower layers are not complete yet.
    Unknown,
    /// The lower layers, the nearest first.
    Known(&'a [OwnedFd]),
}

/// The place of a layer, and the rules for its entries.
pub struct Destination<'a> {
    /// An empty directory of this process alone.
    pub root: OwnedFd,
    /// The file for the sums of the layer.
    pub sums: Sums,
    pub lower: Lower<'a>,
    pub allowance: Allowance,
    /// Whether root owns all files, in place of the owners in the layer.
    pub ignore_chown: bool,
}

/// Unpacks a layer. Errors are those of the archive, of the limits, and of entries that have no exact
/// form in overlayfs.
pub fn unpack<R: BufRead>(
    reader: &mut Reader<R>,
    destination: Destination<'_>,
) -> Result<Unpacked> {
    let Destination { root, sums, lower, allowance, ignore_chown } = destination;
    let (known, may_defer) = match lower {
        Lower::Known(layers) => (layers, false),
        Lower::Unknown => (&[][..], true),
    };
    let mut state = State {
        tree: Tree::new(root, known, allowance)?,
        sums,
        owner: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
        has_aufs: false,
        copied_from_lower: false,
        may_defer,
        is_deferred: false,
    };
    while let Some(mut entry) = reader.entry().map_err(|e| Error::new(strerror(&e)))? {
        if ignore_chown {
            (entry.uid, entry.gid) = (0, 0);
        }
        let allowance = &mut state.tree.allowance;
        let unpacked = allowance
            .entry()
            .and_then(|()| allowance.bytes(entry.size))
            .and_then(|()| state.entry(&entry, reader));
        if state.is_deferred {
            return Ok(Unpacked::NeedsLower);
        }
        unpacked.map_err(|e| {
            e.context(format_args!("entry {}", String::from_utf8_lossy(&entry.path)))
        })?;
    }
    state.finish()
}

impl State {
    fn entry<R: BufRead>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<()> {
        check_xattrs(entry)?;
        let components = components(&entry.path)?;
        let Some((name, parents)) = components.split_last() else {
            self.tree.enter(&[])?;
            return match entry.kind {
                EntryKind::Directory => self.root(entry),
                _ => Err(Error::new("the root itself is not a directory")),
            };
        };
        let aufs = is_aufs(&components);
        self.has_aufs |= aufs;
        if parents.iter().skip(aufs.into()).any(|c| c.starts_with(WHITEOUT)) {
            return Err(Error::new("a whiteout in place of a directory"));
        }
        let is_whiteout = name.starts_with(WHITEOUT) && !(aufs && parents.is_empty());
        // The target is looked up before the tree enters the directory of the link.
        let target = match &entry.kind {
            EntryKind::HardLink(target) if !is_whiteout => Some(self.target(target)?),
            _ => None,
        };
        self.tree.enter(parents)?;
        if *name == OPAQUE_MARK {
            return self.tree.set_opaque().map_err(|e| self.tree.fault("setxattr", name, e));
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT).filter(|_| is_whiteout) {
            return self.whiteout(hidden);
        }
        if sys::forges_whiteout(&entry.kind, entry.uid) {
            return Err(Error::new("what the store itself hides a name with, not a whiteout"));
        }
        match (&entry.kind, target) {
            (EntryKind::Directory, _) => self.directory(name, entry),
            (EntryKind::File, _) => self.file(name, entry, reader),
            (EntryKind::Symlink(text), _) => self.symlink(name, text, entry),
            (EntryKind::Fifo, _) => self.node(name, FileType::Fifo, 0, entry),
            (EntryKind::Char(major, minor), _) => {
                self.node(name, FileType::CharacterDevice, makedev(*major, *minor), entry)
            }
            (EntryKind::Block(major, minor), _) => {
                self.node(name, FileType::BlockDevice, makedev(*major, *minor), entry)
            }
            (EntryKind::HardLink(_), Some((directory, target))) => {
                self.hard_link(name, &directory, &target)
            }
            (EntryKind::HardLink(_), None) => Err(Error::new("a hard link to nothing")),
        }
    }

    fn finish(mut self) -> Result<Unpacked> {
        if self.has_aufs {
            self.tree.enter(&[])?;
            for name in AUFS {
                self.remove(name)?;
            }
        }
        let implied = self.tree.finish()?;
        self.sums.finish().map_err(unsaved)?;
        Ok(Unpacked::Complete { implied, copied_from_lower: self.copied_from_lower })
    }
}

fn check_xattrs(entry: &Entry) -> Result<()> {
    match entry.xattrs.iter().find(|(key, _)| sys::is_overlay_xattr(key)) {
        Some((key, _)) => Err(Error::new(format_args!(
            "the attribute {}, which is overlayfs' own",
            String::from_utf8_lossy(key)
        ))),
        None => Ok(()),
    }
}
