//! The layers beneath one, as overlayfs would show them.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, XattrFlags};
use rustix::io::{Errno, Result};

use crate::sys;

/// A name in a directory of merged layers.
pub enum Seen {
    /// The name is absent, or hidden.
    Nothing,
    /// A directory, of the layer which decides about its owner and mode.
    Directory(OwnedFd),
    /// Anything else, in the directory of the layer which shows it.
    Other(OwnedFd, Stat),
}

impl Seen {
    /// The text of a symbolic link.
    pub fn link_text(&self, name: &[u8]) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Other(directory, stat) if sys::file_type(stat) == FileType::Symlink => {
                let text = rustix::fs::readlinkat(directory, name, Vec::new())?;
                Ok(Some(text.into_bytes()))
            }
            _ => Ok(None),
        }
    }
}

/// A directory of merged layers. Each layer has one descriptor whatever the depth is, and a step
/// down or up costs a system call for each layer that has the directory.
pub struct Merged {
    /// Each layer's deepest directory on the way to the current one, the uppermost layer first.
    layers: Vec<Place>,
    /// Levels between the root and the current directory.
    level: usize,
}

struct Place {
    directory: OwnedFd,
    level: usize,
}

impl Merged {
    /// Begins at the root of the layers, the uppermost first. An opaque root hides those after it.
    pub fn new(layers: &[OwnedFd]) -> Result<Self> {
        let mut merged = Self { layers: Vec::new(), level: 0 };
        for layer in layers {
            let directory = sys::open_dir(layer, b".")?;
            let opaque = sys::is_opaque(&directory);
            merged.layers.push(Place { directory, level: 0 });
            if opaque {
                break;
            }
        }
        Ok(merged)
    }

    /// Levels between the root and the current directory.
    pub fn level(&self) -> usize {
        self.level
    }

    /// The layers that are merged in the current directory, with their numbers.
    pub fn directories(&self) -> impl Iterator<Item = (usize, &OwnedFd)> {
        let here = |(_, place): &(usize, &Place)| place.level == self.level;
        self.layers
            .iter()
            .enumerate()
            .filter(here)
            .map(|(number, place)| (number, &place.directory))
    }

    /// The directory of one of the merged layers, by number.
    pub fn directory(&self, number: usize) -> Option<&OwnedFd> {
        let place = self.layers.get(number).filter(|place| place.level == self.level);
        place.map(|place| &place.directory)
    }

    /// The uppermost of the merged directories, which decides about owner and mode.
    pub fn top(&self) -> Option<&OwnedFd> {
        self.directories().next().map(|(_, directory)| directory)
    }

    /// Looks a name of the current directory up.
    pub fn see(&self, name: &[u8]) -> Result<Seen> {
        for (_, directory) in self.directories() {
            match sys::open_dir(directory, name) {
                Ok(found) => return Ok(Seen::Directory(found)),
                Err(Errno::NOENT) => {}
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    let stat = sys::stat(directory, name)?;
                    if sys::is_whiteout(&stat) {
                        return Ok(Seen::Nothing);
                    }
                    return Ok(Seen::Other(sys::open_dir(directory, b".")?, stat));
                }
                Err(e) => return Err(e),
            }
        }
        Ok(Seen::Nothing)
    }

    /// Makes a name of the current directory the current directory. No layer is merged there if no
    /// layer shows a directory of that name.
    pub fn descend(&mut self, name: &[u8]) -> Result<()> {
        let level = self.level;
        self.level += 1;
        for place in self.layers.iter_mut().filter(|place| place.level == level) {
            match sys::open_dir(&place.directory, name) {
                Ok(directory) => {
                    let opaque = sys::is_opaque(&directory);
                    *place = Place { directory, level: level + 1 };
                    if opaque {
                        break;
                    }
                }
                Err(Errno::NOENT) => {}
                Err(Errno::NOTDIR | Errno::LOOP) => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Makes the directory above the current one the current one.
    pub fn ascend(&mut self) -> Result<()> {
        let level = self.level;
        self.level = level.saturating_sub(1);
        for place in self.layers.iter_mut().filter(|place| place.level == level && level > 0) {
            place.directory = sys::open_dir(&place.directory, b"..")?;
            place.level = level - 1;
        }
        Ok(())
    }
}
/// Makes `to` as `from` is: owner, mode, attributes and time.
pub fn copy_metadata(from: impl AsFd, to: impl AsFd) -> Result<()> {
    let (from, to) = (from.as_fd(), to.as_fd());
    let stat = rustix::fs::fstat(from)?;
    rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
    for (key, value) in sys::xattrs(from)? {
        rustix::fs::fsetxattr(to, key.as_slice(), &value, XattrFlags::empty())?;
    }
    rustix::fs::futimens(to, &sys::timestamps(sys::mtime(&stat)))
}

/// Copies what is no directory into another directory, under its own name.
pub fn copy_up(from: &OwnedFd, to: &OwnedFd, name: &[u8], stat: &Stat) -> std::io::Result<()> {
    let kind = sys::file_type(stat);
    if kind != FileType::RegularFile {
        let mode = Mode::from_raw_mode(stat.st_mode);
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        if kind == FileType::Symlink {
            let text = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(text.as_c_str(), to, name)?;
        } else {
            sys::mknod(to, name, kind, mode, stat.st_rdev)?;
        }
        rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        if kind != FileType::Symlink {
            rustix::fs::chmodat(to, name, mode, AtFlags::empty())?;
        }
        sys::set_xattrs_at(to, name, &sys::xattrs_at(from, name)?)?;
        let times = sys::timestamps(sys::mtime(stat));
        return rustix::fs::utimensat(to, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(Into::into);
    }
    let source = sys::open_file(from, name)?.ok_or(Errno::NOENT)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let target = File::from(rustix::fs::openat(to, name, flags, Mode::RUSR)?);
    std::io::copy(&mut &source, &mut &target)?;
    copy_metadata(&source, &target).map_err(Into::into)
}
