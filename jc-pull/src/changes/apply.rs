//! `--apply`: the changes of an upper directory, made in another directory. All paths are looked up beneath its
//! descriptor, no symbolic link is followed, and each file appears complete, by rename.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;

use jc_unshare::{Context, Result};
use rustix::fs::{AtFlags, Gid, Mode, Stat, Uid, XattrFlags};
use rustix::io::Errno;

use super::base::{Base, open_dir};
use super::delta::{Directory, Node, Visitor, walk};
use super::difference::{Difference, compare};
use super::lookup::{Below, Lower};
use super::pattern::Patterns;
use super::staging::Staging;
use super::upper::{Placed, Upper};
use crate::copy::copy_up;
use crate::dir_stack::DirStack;
use crate::sys::{self, Xattrs};

/// Applies the changes that the patterns select. `base` has the lower directories, in place of the recorded ones. An
/// error leaves the changes that were made before it.
pub fn apply(
    upper: &Upper,
    base: Option<&Base>,
    directory: &Path,
    patterns: &Patterns,
) -> Result<()> {
    let top = open_dir(directory).on("open", directory)?;
    let mut staging = Staging::new(&top).on("make a directory in", directory)?;
    for placed in upper.placed(base)? {
        apply_part(&placed, &top, &mut staging, patterns)
            .map_err(|e| e.context(format_args!("apply to {}", directory.display())))?;
    }
    drop(staging);
    sys::sync(&top).on("sync", directory)
}

fn apply_part(
    placed: &Placed<'_>,
    top: &OwnedFd,
    staging: &mut Staging,
    patterns: &Patterns,
) -> Result<()> {
    let root = open_part(top, &placed.part.at).on("open", sys::as_path(&placed.part.at))?;
    let position = placed.position();
    let mut applier = Applier {
        placed,
        prefix: position.prefix(),
        below: position.open()?,
        patterns,
        staging,
        target: DirStack::new(root),
        frames: Vec::new(),
        links: BTreeMap::new(),
    };
    walk(&placed.part.root, placed.part.marks, &placed.skipped, &mut applier)
}

/// Opens the directory of a part for reading.
pub fn open_part(top: &OwnedFd, at: &[u8]) -> rustix::io::Result<OwnedFd> {
    let names = at.split(|b| *b == b'/').filter(|name| !name.is_empty());
    names.fold(sys::open_dir_to_read(top, "."), |at, name| sys::open_dir_to_read(&at?, name))
}

struct Applier<'a> {
    placed: &'a Placed<'a>,
    prefix: Vec<u8>,
    below: Below,
    patterns: &'a Patterns,
    staging: &'a mut Staging,
    /// The deepest directory of `frames` that is entered.
    target: DirStack,
    frames: Vec<Frame>,
    /// The files with several names that are made, by device and inode in the upper directory.
    links: BTreeMap<(u64, u64), Made>,
}

/// A directory of the walk.
struct Frame {
    name: Vec<u8>,
    stat: Stat,
    xattrs: Xattrs,
    is_selected: bool,
    /// Whether the upper directory decides about owner, mode and attributes.
    sets_metadata: bool,
    /// Whether a directory in its place loses all that it has.
    replaces: bool,
    /// Whether the directory is the target's current one or above it.
    is_entered: bool,
}

/// A file that is made in the target.
struct Made {
    /// The path from the root of the part.
    path: Vec<u8>,
    /// Device and inode.
    identity: (u64, u64),
}

impl Applier<'_> {
    fn is_selected(&self, path: &[u8]) -> bool {
        self.patterns.match_path(&[self.prefix.as_slice(), path].concat())
    }

    /// Enters the directory of the walk in the target. Absent directories are made if `makes` is set; otherwise
    /// `false` is returned.
    fn enter(&mut self, makes: bool) -> std::io::Result<bool> {
        for number in 0..self.frames.len() {
            let Some(frame) = self.frames.get_mut(number).filter(|frame| !frame.is_entered) else {
                continue;
            };
            let existing = match sys::open_dir_to_read(self.target.fd(), frame.name.as_slice()) {
                Ok(existing) if !frame.replaces => Some(existing),
                Ok(_) => None,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if makes => None,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
                Err(e) => return Err(e.into()),
            };
            let child = match existing {
                Some(existing) => existing,
                None => {
                    frame.sets_metadata = true;
                    self.staging.place(self.target.fd(), &frame.name, |staging, name| {
                        Ok(rustix::fs::mkdirat(staging, name, Mode::RWXU)?)
                    })?;
                    sys::open_dir_to_read(self.target.fd(), frame.name.as_slice())?
                }
            };
            self.target.push(child)?;
            frame.is_entered = true;
        }
        Ok(true)
    }

    /// Makes the further name of a file that has been made. `false` if that file is not there any more.
    fn link(&mut self, file: &Node<'_>) -> std::io::Result<bool> {
        let Some(made) = self.links.get(&sys::identity(file.stat)) else { return Ok(false) };
        let parts: Vec<&[u8]> = made.path.split(|b| *b == b'/').collect();
        let Some((first, parents)) = parts.split_last() else { return Ok(false) };
        let parent = match sys::open_beneath(self.target.root(), parents) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
            other => other?,
        };
        let is_made = |stat: &Stat| sys::identity(stat) == made.identity;
        let linked = self.staging.place(self.target.fd(), file.name, |staging, name| {
            rustix::fs::linkat(&parent, *first, staging, name, AtFlags::empty())?;
            if is_made(&sys::stat(staging, name)?) { Ok(()) } else { Err(Errno::STALE.into()) }
        });
        let again = [Errno::STALE, Errno::NOENT, Errno::XDEV].map(Errno::raw_os_error);
        match linked {
            Err(e) if e.raw_os_error().is_some_and(|errno| again.contains(&errno)) => Ok(false),
            other => other.map(|()| true),
        }
    }

    fn make(&mut self, file: &Node<'_>) -> std::io::Result<()> {
        self.enter(true)?;
        let may_have_names = file.stat.st_nlink > 1;
        if may_have_names && self.link(file)? {
            return Ok(());
        }
        self.staging.place(self.target.fd(), file.name, |staging, name| {
            copy_up(file.parent, staging, name, file.stat)
        })?;
        if may_have_names {
            let identity = sys::identity(&sys::stat(self.target.fd(), file.name)?);
            let made = Made { path: file.path.to_vec(), identity };
            self.links.insert(sys::identity(file.stat), made);
        }
        Ok(())
    }

    /// Sets the metadata of the current directory of the target.
    fn set_metadata(&self, frame: &Frame) -> rustix::io::Result<()> {
        let (fd, stat) = (self.target.fd(), &frame.stat);
        if frame.sets_metadata {
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            rustix::fs::fchown(fd, Some(uid), Some(gid))?;
            set_xattrs(fd, &frame.xattrs)?;
            rustix::fs::fchmod(fd, Mode::from_raw_mode(stat.st_mode))?;
        }
        match rustix::fs::futimens(fd, &sys::timestamps(sys::mtime(stat))) {
            // A directory of another user has the time of the change.
            Err(Errno::PERM) if !frame.sets_metadata => Ok(()),
            other => other,
        }
    }
}

/// Gives a directory these attributes, and no others. The attributes of overlayfs stay.
fn set_xattrs(fd: &OwnedFd, wanted: &Xattrs) -> rustix::io::Result<()> {
    let present = sys::xattrs(fd)?;
    let is_wanted = |key: &Vec<u8>| wanted.iter().any(|(other, _)| other == key);
    for (key, _) in present.iter().filter(|(key, _)| !is_wanted(key)) {
        rustix::fs::fremovexattr(fd, key.as_slice())?;
    }
    let new = wanted.iter().filter(|pair| !present.contains(pair));
    new.into_iter().try_for_each(|(key, value)| {
        rustix::fs::fsetxattr(fd, key.as_slice(), value, XattrFlags::empty())
    })
}

impl Visitor for Applier<'_> {
    fn directory(&mut self, directory: &Directory<'_>) -> Result<()> {
        let Directory { path, name, fd, stat, is_opaque } = directory;
        let shown = sys::as_path(path);
        let is_root = path.is_empty();
        let lower = self.below.enter(name, is_root).on("read", shown)?;
        let marks = self.placed.part.marks;
        let xattrs = marks.shown(sys::all_xattrs(fd).on("read", shown)?);
        let xattrs = xattrs.map_err(|e| e.context(shown.display()))?;
        let sets_metadata = match &lower {
            _ if is_root => !lower.is_like_root(stat, &xattrs)?,
            Lower::Directory(lower) => compare(directory, lower, marks)? == Difference::Metadata,
            _ => true,
        };
        let is_selected = self.is_selected(path);
        self.frames.push(Frame {
            name: name.to_vec(),
            stat: **stat,
            xattrs,
            is_selected,
            sets_metadata: sets_metadata && is_selected,
            replaces: *is_opaque && is_selected && !is_root,
            is_entered: is_root,
        });
        if is_selected {
            self.enter(true).on("make", shown)?;
        }
        Ok(())
    }

    fn leave(&mut self, directory: &Directory<'_>) -> Result<()> {
        let shown = sys::as_path(directory.path);
        self.below.leave().on("read", shown)?;
        let Some(frame) = self.frames.pop().filter(|frame| frame.is_entered) else {
            return Ok(());
        };
        if frame.is_selected || frame.sets_metadata {
            self.set_metadata(&frame).on("set metadata of", shown)?;
        }
        self.target.pop().on("leave", shown)
    }

    fn file(&mut self, file: &Node<'_>) -> Result<()> {
        if !self.is_selected(file.path) {
            return Ok(());
        }
        let marks = self.placed.part.marks;
        let shown = sys::as_path(file.path);
        let all = sys::all_xattrs_at(file.parent, file.name).on("read", shown)?;
        marks.shown(all).map_err(|e| e.context(shown.display()))?;
        self.make(file).on("make", shown)
    }

    fn whiteout(&mut self, path: &[u8], name: &[u8]) -> Result<()> {
        if !self.is_selected(path) {
            return Ok(());
        }
        let shown = sys::as_path(path);
        if self.enter(false).on("open", shown)? {
            self.staging.remove(self.target.fd(), name).on("remove", shown)?;
        }
        Ok(())
    }
}
