//! The root: a directory, or an overlay of layers.

mod layer;
mod overlay;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use jc_unshare::descriptor::open_dir;
use jc_unshare::{Context, Result};

use crate::linux::args::values::Upper;
use crate::linux::mount::fscontext::{attach, clone_fd, restrict_tree};
use crate::linux::sys::{self, attr, propagation};
use layer::Layer;
use overlay::overlay;

/// The source of the root.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Root {
    /// A directory, with all mounts below it.
    Directory(PathBuf),
    /// An overlay of layers, the lowest first.
    Overlay(Vec<PathBuf>, Upper),
}

impl Root {
    /// Mounts the root over "/" of this mount namespace, for pivot_root(2), and returns its directory. The mount
    /// has the attribute `nodev`.
    pub fn attach(&self, read_only: bool) -> Result<OwnedFd> {
        let slash = open_dir(Path::new("/"))?;
        match self {
            Self::Directory(directory) => {
                let mount = clone_fd(open_dir(directory)?, true, directory)?;
                let read_only = if read_only { attr::RDONLY } else { 0 };
                restrict_tree(mount.as_fd(), attr::NODEV | read_only, directory)?;
                attach(&mount, &slash, directory)?;
                Ok(mount)
            }
            Self::Overlay(layers, upper) => {
                let layers = Layer::open_all(layers)?;
                let mount = overlay(&layers, upper, &slash)?;
                attach(&mount, &slash, Path::new("overlay"))?;
                // mountinfo lists the layers from here on, so their locks may end.
                layers.iter().try_for_each(Layer::require_path)?;
                Ok(mount)
            }
        }
    }
}

/// A directory of the host as the root of `--bare`.
pub struct Bare {
    mount: OwnedFd,
    place: OwnedFd,
}

impl Bare {
    /// Creates a detached copy of the directory with all mounts below. If `is_slave`, mounts that the host makes there
    /// later propagate to the copy, for which the mounts of this process must still be peers of the host's.
    pub fn open(directory: &Path, is_slave: bool) -> Result<Self> {
        let place = open_dir(directory)?;
        let mount = clone_fd(&place, true, directory)?;
        let types = if is_slave { propagation::SLAVE } else { propagation::PRIVATE };
        sys::mount_setattr(mount.as_fd(), 0, types, true).on("set propagation of", directory)?;
        Ok(Self { mount, place })
    }

    /// Mounts the copy over the directory itself, where programs of the host find it by its path. Returns its root.
    pub fn attach(self, shown: &Path) -> Result<OwnedFd> {
        attach(&self.mount, &self.place, shown)?;
        Ok(self.mount)
    }
}

/// Makes the mount of the root read-only, after all mount points in it are made.
pub fn make_read_only(root: &OwnedFd) -> Result<()> {
    sys::mount_setattr(root.as_fd(), attr::RDONLY, propagation::KEEP, false).op("mount_setattr /")
}
