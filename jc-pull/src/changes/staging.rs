//! A directory beside the target of changes, in which each new file is completed before it is renamed to its place.

use std::os::fd::{AsFd, OwnedFd};

use jc_unshare::{remove_tree, temporary};
use rustix::fs::{RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::atomic::sweep;
use crate::sys;

/// The beginning of the directory's name.
const PREFIX: &str = ".jc-changes-";

/// Directories of this process alone, one for each mount. They are removed with this value. The next process removes
/// those that a dead process has left beside them.
pub struct Staging {
    /// The newest one last.
    directories: Vec<Made>,
}

struct Made {
    parent: OwnedFd,
    name: String,
    fd: OwnedFd,
}

impl Made {
    fn new(parent: &OwnedFd) -> rustix::io::Result<Self> {
        let parent = sys::open_dir_to_read(parent, ".")?;
        sweep(&parent, PREFIX.as_bytes())?;
        let (name, fd) = temporary::create_dir(&parent, PREFIX)?;
        let made = Self { parent, name, fd };
        // New files must not inherit from the target's lists.
        sys::clear_acls(&made.fd)?;
        Ok(made)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let before = rustix::fs::fstat(&self.parent);
        // The next process removes a directory that stays here.
        let _: rustix::io::Result<()> = remove_tree(&self.parent, self.name.as_bytes());
        // The changes decide about the time of the parent, which may belong to another user.
        let _: rustix::io::Result<()> = before.and_then(|stat| {
            rustix::fs::futimens(&self.parent, &sys::timestamps(sys::mtime(&stat)))
        });
    }
}

impl Staging {
    /// Makes a directory in the target. A user who may not do so gets one beside the first change.
    pub fn new(target: &OwnedFd) -> rustix::io::Result<Self> {
        match Made::new(target) {
            Ok(made) => Ok(Self { directories: vec![made] }),
            Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) => Ok(Self { directories: Vec::new() }),
            Err(e) => Err(e),
        }
    }

    /// Runs `work` with a directory in the mount of `near`. `EXDEV` of the work: a directory in `near` itself is made,
    /// and the work begins again.
    fn beside<T>(
        &mut self,
        near: &OwnedFd,
        mut work: impl FnMut(&OwnedFd) -> std::io::Result<T>,
    ) -> std::io::Result<T> {
        for made in self.directories.iter().rev() {
            match work(&made.fd) {
                Err(e) if e.raw_os_error() == Some(Errno::XDEV.raw_os_error()) => {}
                other => return other,
            }
        }
        let made = Made::new(near)?;
        let outcome = work(&made.fd);
        self.directories.push(made);
        outcome
    }

    /// Makes a file by `make`, and renames it to a name in a directory, in place of whatever the name has.
    pub fn place(
        &mut self,
        directory: &OwnedFd,
        name: &[u8],
        make: impl Fn(&OwnedFd, &[u8]) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        self.beside(directory, |staging| {
            let placed = make(staging, name).and_then(|()| rename(staging, directory, name));
            // The rest of a failure, or the file that had the name.
            remove_tree(staging, name)?;
            placed
        })
    }

    /// Removes a name from a directory, with all below it. The name disappears at once.
    pub fn remove(&mut self, directory: &OwnedFd, name: &[u8]) -> std::io::Result<()> {
        self.beside(directory, |staging| {
            match rustix::fs::renameat(directory, name, staging, name) {
                Err(Errno::NOENT) => Ok(()),
                other => Ok(other.and_then(|()| remove_tree(staging, name))?),
            }
        })
    }
}

fn rename(from: impl AsFd, to: impl AsFd, name: &[u8]) -> std::io::Result<()> {
    match rustix::fs::renameat(&from, name, &to, name) {
        // The new file or the old one is a directory, and an old directory has files.
        Err(Errno::ISDIR | Errno::NOTDIR | Errno::NOTEMPTY | Errno::EXIST) => {}
        other => return Ok(other?),
    }
    match renameat_with(&from, name, &to, name, RenameFlags::EXCHANGE) {
        // The file system cannot exchange names.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            remove_tree(&to, name)?;
            Ok(rustix::fs::renameat(&from, name, &to, name)?)
        }
        // The name has gone meanwhile.
        Err(Errno::NOENT) => Ok(rustix::fs::renameat(&from, name, &to, name)?),
        other => Ok(other?),
    }
}
