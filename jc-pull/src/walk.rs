//! A walk over the files that an overlay of layers would show, without a mount.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use jc_unshare::{Context, Result};
use rustix::fs::{FileType, Stat};

use crate::merged::Merged;
use crate::sys;

/// The receiver of a walk. Directories come before their content. An error ends the walk.
pub trait Visitor {
    /// A directory, before its content. The path of the root is empty.
    fn directory(&mut self, _path: &[u8], _directory: &OwnedFd, _stat: &Stat) -> Result<()> {
        Ok(())
    }

    /// A file that is no directory.
    fn non_directory(&mut self, entry: &NonDirectory<'_>) -> Result<()>;

    /// The end of the content of a directory.
    fn leave(&mut self, _path: &[u8], _directory: &OwnedFd) -> Result<()> {
        Ok(())
    }
}

/// A file that is no directory.
pub struct NonDirectory<'a> {
    /// The path from the root.
    pub path: &'a [u8],
    /// The directory in the layer that shows the file.
    pub parent: &'a OwnedFd,
    pub name: &'a [u8],
    pub stat: &'a Stat,
    /// The earlier path of a file with several names.
    pub first: Option<&'a [u8]>,
}

/// Walks the merged `layers`, the uppermost first. Each layer has one open descriptor at every depth.
/// Errors are those of the visitor and of reading directories.
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
    /// The path of the current directory, or of the entry in it.
    path: Vec<u8>,
    /// The directories between the root and the current one, the root first.
    frames: Vec<Frame>,
    /// The first paths of files with several names, by layer and inode.
    links: BTreeMap<(usize, u64), Vec<u8>>,
}

struct Frame {
    /// The names that are left, the next one last, each with the uppermost layer that has it.
    names: Vec<(Vec<u8>, usize)>,
    /// The length of the path of the parent.
    above: usize,
}

impl Walk<'_> {
    fn shown_path(&self) -> PathBuf {
        Path::new("/").join(sys::as_path(&self.path))
    }

    /// Visits the directory that has become the current one.
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
        self.frames.push(Frame { names: names.into_iter().rev().collect(), above });
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        let (Some(frame), Some(top)) = (self.frames.pop(), self.merged.top()) else {
            return Ok(());
        };
        self.visitor.leave(&self.path, top)?;
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
