//! Merged layers, as overlayfs shows them.

use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Stat};
use rustix::io::{Errno, Result};

use crate::sys;

/// A name in a directory of merged layers.
pub enum Lookup {
    /// The name is absent or hidden.
    Absent,
    /// A directory of the layer that decides about owner and mode.
    Directory(OwnedFd),
    /// Another file, in the directory of the layer that shows it.
    NonDirectory(OwnedFd, Stat),
}

impl Lookup {
    /// The text of a symbolic link.
    pub fn link_text(&self, name: &[u8]) -> Result<Option<Vec<u8>>> {
        match self {
            Self::NonDirectory(directory, stat) if sys::file_type(stat) == FileType::Symlink => {
                let text = rustix::fs::readlinkat(directory, name, Vec::new())?;
                Ok(Some(text.into_bytes()))
            }
            _ => Ok(None),
        }
    }
}

/// The current directory of merged layers. Each layer has one descriptor at every depth, and a step down
/// or up costs a system call for each layer that has the directory.
pub struct Merged {
    /// The deepest directory of each layer above or at the current one, the uppermost layer first.
    layers: Vec<Position>,
    /// The depth of the current directory.
    level: usize,
}

struct Position {
    directory: OwnedFd,
    level: usize,
}

impl Merged {
    /// Starts at the root of the layers, the uppermost first. An opaque root hides the layers after it.
    pub fn new(layers: &[OwnedFd]) -> Result<Self> {
        let mut merged = Self { layers: Vec::new(), level: 0 };
        for layer in layers {
            let directory = sys::open_dir_to_read(layer, ".")?;
            let opaque = sys::is_opaque(&directory);
            merged.layers.push(Position { directory, level: 0 });
            if opaque {
                break;
            }
        }
        Ok(merged)
    }

    pub fn level(&self) -> usize {
        self.level
    }

    /// The directories of the layers that are merged here, with the numbers of the layers.
    pub fn directories(&self) -> impl Iterator<Item = (usize, &OwnedFd)> {
        let here = |(_, position): &(usize, &Position)| position.level == self.level;
        self.layers
            .iter()
            .enumerate()
            .filter(here)
            .map(|(number, position)| (number, &position.directory))
    }

    /// The directory of one layer.
    pub fn directory(&self, number: usize) -> Option<&OwnedFd> {
        let position = self.layers.get(number).filter(|position| position.level == self.level);
        position.map(|position| &position.directory)
    }

    /// The uppermost directory, which decides about owner and mode.
    pub fn top(&self) -> Option<&OwnedFd> {
        self.directories().next().map(|(_, directory)| directory)
    }

    /// Looks up a name in the current directory. Errors are those of openat(2), except absence.
    pub fn lookup(&self, name: &[u8]) -> Result<Lookup> {
        for (_, directory) in self.directories() {
            match sys::open_dir_to_read(directory, name) {
                Ok(found) => return Ok(Lookup::Directory(found)),
                Err(Errno::NOENT) => {}
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    let stat = sys::stat(directory, name)?;
                    if sys::is_whiteout(&stat) {
                        return Ok(Lookup::Absent);
                    }
                    return Ok(Lookup::NonDirectory(sys::open_dir_to_read(directory, ".")?, stat));
                }
                Err(e) => return Err(e),
            }
        }
        Ok(Lookup::Absent)
    }

    /// Enters a directory. No layer is merged there if no layer has the directory. Errors are those of
    /// openat(2), except absence.
    pub fn descend(&mut self, name: &[u8]) -> Result<()> {
        let level = self.level;
        self.level += 1;
        for position in self.layers.iter_mut().filter(|position| position.level == level) {
            match sys::open_dir_to_read(&position.directory, name) {
                Ok(directory) => {
                    let opaque = sys::is_opaque(&directory);
                    *position = Position { directory, level: level + 1 };
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

    /// Enters the parent of the current directory.
    pub fn ascend(&mut self) -> Result<()> {
        let level = self.level;
        self.level = level.saturating_sub(1);
        for position in
            self.layers.iter_mut().filter(|position| position.level == level && level > 0)
        {
            position.directory = sys::open_dir_to_read(&position.directory, "..")?;
            position.level = level - 1;
        }
        Ok(())
    }
}
