//! What an overlay of layers shows, walked without mounting one.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use jc_unshare::{Context, Result};
use rustix::fs::{FileType, Stat};

use crate::merged::Merged;
use crate::sys;

/// Takes what is shown, parents before what is in them.
pub trait Visitor {
    /// A directory, before all in it; `""` is the root.
    fn directory(&mut self, path: &[u8], directory: &OwnedFd, stat: &Stat) -> Result<()>;

    /// Anything else, in its directory of its layer. `first` is the path under which it was seen
    /// before, if it has several names.
    fn non_directory(&mut self, entry: &NonDirectory<'_>) -> Result<()>;

    /// All in the directory has been shown.
    fn leave(&mut self, path: &[u8], directory: &OwnedFd, stat: &Stat) -> Result<()>;
}

/// What is no directory.
pub struct NonDirectory<'a> {
    /// Its path from the root.
    pub path: &'a [u8],
    /// Its directory, in the layer that shows it.
    pub parent: &'a OwnedFd,
    /// Its name there.
    pub name: &'a [u8],
    /// What stat(2) says of it.
    pub stat: &'a Stat,
    /// Where the same file was before.
    pub first: Option<&'a [u8]>,
}

/// Shows the merged `layers`, the uppermost first. Open descriptors are one a layer whatever the depth
/// of the tree is.
pub fn walk(layers: &[OwnedFd], visitor: &mut dyn Visitor) -> Result<()> {
    let merged = Merged::new(layers).on("read", "/")?;
    let mut walk =
        Walk { visitor, merged, path: Vec::new(), frames: Vec::new(), links: BTreeMap::new() };
    walk.enter(0)?;
    while let Some(frame) = walk.frames.last_mut() {
        match frame.names.pop() {
            Some((name, layer)) => walk.entry(&name, layer)?,
            None => walk.leave()?,
        }
    }
    Ok(())
}

struct Walk<'a> {
    visitor: &'a mut dyn Visitor,
    merged: Merged,
    /// The path of the current directory, and of the entry in it that is shown.
    path: Vec<u8>,
    /// The directories on the way to the current one, the root first.
    frames: Vec<Frame>,
    /// Files with several names, by layer and inode: where they were first.
    links: BTreeMap<(usize, u64), Vec<u8>>,
}

struct Frame {
    stat: Stat,
    /// Names that are still to be shown, the next one last, each with the uppermost layer that has it.
    names: Vec<(Vec<u8>, usize)>,
    /// The length of the path of the directory above.
    above: usize,
}

impl Walk<'_> {
    fn shown_path(&self) -> PathBuf {
        Path::new("/").join(sys::as_path(&self.path))
    }

    /// Shows the directory that has become the current one.
    fn enter(&mut self, above: usize) -> Result<()> {
        let Some(top) = self.merged.top() else { return Ok(()) };
        let stat = rustix::fs::fstat(top).on("read", self.shown_path())?;
        self.visitor.directory(&self.path, top, &stat)?;
        let mut names = BTreeMap::<Vec<u8>, usize>::new();
        for (layer, directory) in self.merged.directories() {
            sys::for_each_name(directory, |name| {
                names.entry(name.to_vec()).or_insert(layer);
                Ok(())
            })
            .on("read", self.shown_path())?;
        }
        self.frames.push(Frame { stat, names: names.into_iter().rev().collect(), above });
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        let (Some(frame), Some(top)) = (self.frames.pop(), self.merged.top()) else {
            return Ok(());
        };
        self.visitor.leave(&self.path, top, &frame.stat)?;
        self.merged.ascend().on("read", self.shown_path())?;
        self.path.truncate(frame.above);
        Ok(())
    }

    fn entry(&mut self, name: &[u8], layer: usize) -> Result<()> {
        let above = self.path.len();
        if above > 0 {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        let Some(parent) = self.merged.directory(layer) else { return Ok(()) };
        let stat = sys::stat(parent, name).on("read", self.shown_path())?;
        if sys::file_type(&stat) == FileType::Directory {
            self.merged.descend(name).on("read", self.shown_path())?;
            return self.enter(above);
        }
        if !sys::is_whiteout(&stat) {
            let key = (layer, stat.st_ino);
            let first = self.links.get(&key).cloned();
            if stat.st_nlink > 1 && first.is_none() {
                self.links.insert(key, self.path.clone());
            }
            let (path, first) = (self.path.as_slice(), first.as_deref());
            self.visitor.non_directory(&NonDirectory { path, parent, name, stat: &stat, first })?;
        }
        self.path.truncate(above);
        Ok(())
    }
}
