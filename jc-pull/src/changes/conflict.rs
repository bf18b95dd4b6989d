//! Files of a target that differ from the base of the changes, so that the changes would overwrite other ones.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use jc_unshare::{Context, Result};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::apply::open_part;
use super::base::{Base, open_dir};
use super::delta::{Directory, Node, Visitor, walk};
use super::list::list;
use super::lookup::{Below, Lower};
use super::marks::Marks;
use super::pattern::Patterns;
use super::upper::{Placed, Upper};
use crate::sys;

/// The paths of changes whose file in the target is neither that of the base nor already the new one, sorted.
pub fn conflicts(
    upper: &Upper,
    base: &Base,
    directory: &Path,
    patterns: &Patterns,
) -> Result<Vec<Vec<u8>>> {
    let top = open_dir(directory).on("open", directory)?;
    let mut found = BTreeSet::new();
    for placed in upper.placed(Some(base))? {
        let part = placed.part;
        let root = open_part(&top, &part.at).on("open", sys::as_path(&part.at))?;
        let position = placed.position();
        for change in list(&part.root, part.marks, &position, &placed.skipped, patterns)? {
            let path = relative(&change.path, &part.at);
            let is_new_directory =
                change.stat.is_some_and(|stat| sys::file_type(&stat) == FileType::Directory);
            if is_conflict(&placed, &root, path, !is_new_directory)? {
                found.insert(change.path);
            }
        }
    }
    Ok(found.into_iter().collect())
}

/// The path of a change from the root of its part, which is `.` itself.
pub fn relative<'a>(path: &'a [u8], at: &[u8]) -> &'a [u8] {
    if at.is_empty() {
        return path;
    }
    path.strip_prefix(at).and_then(|below| below.strip_prefix(b"/")).unwrap_or(b".")
}

/// A name in an open directory.
struct Place<'a> {
    parent: OwnedFd,
    name: &'a [u8],
}

impl<'a> Place<'a> {
    /// The place of a path beneath a directory. `None`: there is no directory for it.
    fn beneath(root: &OwnedFd, path: &'a [u8]) -> rustix::io::Result<Option<Self>> {
        let parts: Vec<&[u8]> = path.split(|b| *b == b'/').collect();
        let Some((name, parents)) = parts.split_last() else { return Ok(None) };
        match sys::open_beneath(root, parents) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            other => Ok(Some(Self { parent: other?, name })),
        }
    }

    fn stat(&self) -> rustix::io::Result<Option<Stat>> {
        match sys::stat(&self.parent, self.name) {
            Err(Errno::NOENT) => Ok(None),
            other => other.map(Some),
        }
    }
}

/// Whether the file of the target has changed. With `is_deep` the change replaces a directory with all below it.
fn is_conflict(placed: &Placed<'_>, target: &OwnedFd, path: &[u8], is_deep: bool) -> Result<bool> {
    let shown = sys::as_path(path);
    let Some(there) = Place::beneath(target, path).on("open", shown)? else { return Ok(false) };
    let Some(theirs) = there.stat().on("stat", shown)? else { return Ok(false) };
    if is_applied(&placed.part.root, path, &there, &theirs).on("compare", shown)? {
        return Ok(false);
    }
    let mut below = placed.position().open()?;
    let parts: Vec<&[u8]> = path.split(|b| *b == b'/').collect();
    for parent in parts.iter().take(parts.len() - 1) {
        below.enter(parent, false).on("read", shown)?;
    }
    let base = match below.lookup(there.name).on("read", shown)? {
        Lower::Unknown | Lower::Absent => return Ok(true),
        Lower::NonDirectory(parent, stat) => {
            let (base, there) =
                ((&parent, there.name, &stat), (&there.parent, there.name, &theirs));
            return same_file(base, there).on("compare", shown).map(|same| !same);
        }
        Lower::Directory(base) => base,
    };
    if sys::file_type(&theirs) != FileType::Directory {
        return Ok(true);
    }
    let same = same_metadata(&rustix::fs::fstat(&base).on("stat", shown)?, &theirs);
    if !same || !is_deep {
        return Ok(!same);
    }
    below.enter(there.name, false).on("read", shown)?;
    let inside = sys::open_dir_to_read(&there.parent, there.name).on("open", shown)?;
    differs_below(&inside, below)
}

/// Whether a file of the target is the new one already.
fn is_applied(
    root: &OwnedFd,
    path: &[u8],
    there: &Place<'_>,
    theirs: &Stat,
) -> std::io::Result<bool> {
    let Some(new) = Place::beneath(root, path)? else { return Ok(false) };
    let Some(ours) = new.stat()? else { return Ok(false) };
    if sys::file_type(&ours) == FileType::Directory {
        return Ok(false);
    }
    same_file((&new.parent, new.name, &ours), (&there.parent, there.name, theirs))
}

fn same_metadata(a: &Stat, b: &Stat) -> bool {
    let key = |s: &Stat| (s.st_mode, s.st_uid, s.st_gid);
    key(a) == key(b)
}

type FileAt<'a> = (&'a OwnedFd, &'a [u8], &'a Stat);

/// Whether two files have the same type, metadata and content. Their times do not count. Directories are not compared
/// in depth.
fn same_file(a: FileAt<'_>, b: FileAt<'_>) -> std::io::Result<bool> {
    if !same_metadata(a.2, b.2) || sys::xattrs_at(a.0, a.1)? != sys::xattrs_at(b.0, b.1)? {
        return Ok(false);
    }
    match sys::file_type(a.2) {
        FileType::RegularFile if a.2.st_size == b.2.st_size => {
            let open = |file: FileAt<'_>| sys::open_file(file.0, file.1);
            match (open(a)?, open(b)?) {
                (Some(a), Some(b)) => same_content(a, b),
                _ => Ok(false),
            }
        }
        FileType::RegularFile => Ok(false),
        FileType::Symlink => {
            let text = |file: FileAt<'_>| rustix::fs::readlinkat(file.0, file.1, Vec::new());
            Ok(text(a)? == text(b)?)
        }
        _ => Ok(a.2.st_rdev == b.2.st_rdev),
    }
}

fn same_content(a: File, b: File) -> std::io::Result<bool> {
    const PIECE: usize = 64 << 10;
    let (mut a, mut b) = (BufReader::with_capacity(PIECE, a), BufReader::with_capacity(PIECE, b));
    let (mut left, mut right) = (Vec::with_capacity(PIECE), Vec::with_capacity(PIECE));
    loop {
        left.clear();
        right.clear();
        a.by_ref().take(PIECE as u64).read_to_end(&mut left)?;
        b.by_ref().take(PIECE as u64).read_to_end(&mut right)?;
        if left != right {
            return Ok(false);
        }
        if left.is_empty() {
            return Ok(true);
        }
    }
}

/// Whether a directory of the target has a file that the base lacks, or another one.
fn differs_below(directory: &OwnedFd, below: Below) -> Result<bool> {
    let mut compared = Compared { below, differs: false };
    walk(directory, Marks::None, &BTreeSet::new(), &mut compared)?;
    Ok(compared.differs)
}

struct Compared {
    below: Below,
    differs: bool,
}

impl Visitor for Compared {
    fn directory(&mut self, directory: &Directory<'_>) -> Result<()> {
        let Directory { path, name, stat, .. } = directory;
        let shown = sys::as_path(path);
        match self.below.enter(name, path.is_empty()).on("read", shown)? {
            Lower::Directory(lower) => {
                let theirs = rustix::fs::fstat(&lower).on("stat", shown)?;
                self.differs |= !same_metadata(stat, &theirs);
            }
            _ => self.differs = true,
        }
        Ok(())
    }

    fn leave(&mut self, directory: &Directory<'_>) -> Result<()> {
        self.below.leave().on("read", sys::as_path(directory.path))
    }

    fn file(&mut self, file: &Node<'_>) -> Result<()> {
        let shown = sys::as_path(file.path);
        if self.differs {
            return Ok(());
        }
        self.differs = match self.below.lookup(file.name).on("read", shown)? {
            Lower::NonDirectory(parent, stat) => {
                let (base, here) =
                    ((&parent, file.name, &stat), (file.parent, file.name, file.stat));
                !same_file(base, here).on("compare", shown)?
            }
            _ => true,
        };
        Ok(())
    }

    fn whiteout(&mut self, _: &[u8], _: &[u8]) -> Result<()> {
        self.differs = true;
        Ok(())
    }
}
