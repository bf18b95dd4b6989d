//! A layer that is being unpacked.

use std::os::fd::OwnedFd;

use jc_unshare::{Error, Result, strerror};
use rustix::io::Errno;

use crate::sums::Sums;
use crate::tar::Entry;
use crate::tree::Tree;

pub struct State {
    pub tree: Tree,
    pub sums: Sums,
    /// The owner of new files before any chown(2).
    pub owner: (u32, u32),
    /// Whether there are files of AUFS, which are removed at the end.
    pub has_aufs: bool,
    pub copied_from_lower: bool,
    /// Whether the layer is unpacked again once the lower layers are known.
    pub may_defer: bool,
    pub is_deferred: bool,
}

impl State {
    /// Makes a file under a name. The last of several entries of one name counts. Errors are those of the
    /// call, except `EEXIST`.
    pub fn create<T>(
        &mut self,
        operation: &str,
        name: &[u8],
        make: impl Fn(&OwnedFd) -> rustix::io::Result<T>,
    ) -> Result<T> {
        let made = match make(self.tree.fd()) {
            Err(Errno::EXIST) => {
                self.remove(name)?;
                make(self.tree.fd())
            }
            other => other,
        };
        made.map_err(|e| self.tree.fault(operation, name, e))
    }

    /// Removes a name from the current directory, with all files below it.
    pub fn remove(&mut self, name: &[u8]) -> Result<()> {
        self.tree.remove(name)?;
        self.sums.removed(&self.tree.path_of(name)).map_err(unsaved)
    }

    pub fn needs_chown(&self, entry: &Entry) -> bool {
        (entry.uid, entry.gid) != self.owner || self.tree.is_setgid()
    }
}

pub fn unsaved(e: std::io::Error) -> Error {
    Error::new(format_args!("write sums: {}", strerror(&e)))
}
