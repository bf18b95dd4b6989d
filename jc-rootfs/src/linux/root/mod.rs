//! The root itself: a directory, or an overlay of layers.

mod layer;
mod overlay;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use jc_unshare::{Context, Result};
use rustix::fs::{Mode, OFlags, open};

use crate::linux::args::values::Upper;
use crate::linux::mount::fscontext::{attach, clone_fd, restrict_tree};
use crate::linux::sys::{self, attr, propagation};
use layer::Layer;
use overlay::overlay;

/// What the root is made of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Root {
    /// This directory, with what is mounted below it.
    Directory(PathBuf),
    /// An overlay: layers, lowest first, and where changes go.
    Overlay(Vec<PathBuf>, Upper),
}

impl Root {
    /// Mounts the root on top of "/" of the present mount namespace, from where [`pivot`] makes it the
    /// root, and returns its directory. Device files in it do not work.
    ///
    /// [`pivot`]: crate::linux::assemble
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
                // From here on the kernel lists them, so the locks may go.
                layers.iter().try_for_each(Layer::require_name)?;
                Ok(mount)
            }
        }
    }
}

/// Opens a directory to mount from or on.
pub fn open_dir(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).on("open", path)
}

/// Makes the root read-only, once everything that is needed has been made in it.
pub fn make_read_only(root: &OwnedFd) -> Result<()> {
    sys::mount_setattr(root.as_fd(), attr::RDONLY, propagation::KEEP, false).op("mount_setattr /")
}
