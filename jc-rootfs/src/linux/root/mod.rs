//! The root: a directory, or an overlay of layers.

mod changes;
mod host;
mod layer;
mod overlay;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use jc_unshare::descriptor::open_dir;
use jc_unshare::{Absent, Context, Error, Result};
use rustix::fs::FileType;

use crate::linux::args::values::Upper;
use crate::linux::mount::fscontext::{attach, clone_fd, new_mount, restrict_tree};
use crate::linux::mount::resolve::{Missing, resolve};
use crate::linux::sys::{self, attr, propagation};
use changes::Changes;
use host::Tree;
use layer::Layer;
use overlay::overlay;

/// The source of the root.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Root {
    /// A directory, with all mounts below it.
    Directory(PathBuf),
    /// An overlay of a directory, and one of each mount below it.
    Protected(PathBuf, Upper),
    /// An overlay of layers, the lowest first.
    Overlay(Vec<PathBuf>, Upper),
}

/// The root of the payload, mounted over "/" of this mount namespace.
pub struct MountedRoot {
    /// The directory of the root.
    pub directory: OwnedFd,
    tree: Option<Tree>,
    changes: Option<Changes>,
}

/// The file systems that jc-rootfs itself mounts in a root.
#[derive(Clone, Copy)]
pub struct OwnMounts<'a>(pub &'a [&'a str]);

impl Root {
    /// Mounts the root over "/" of this mount namespace, for pivot_root(2). The mount has the attribute `nodev`.
    pub fn attach(&self, read_only: bool, own: OwnMounts<'_>) -> Result<MountedRoot> {
        let slash = open_dir(Path::new("/"))?;
        match self {
            Self::Directory(directory) => {
                let mount = clone_fd(open_dir(directory)?, true, directory)?;
                let read_only = if read_only { attr::RDONLY } else { 0 };
                restrict_tree(mount.as_fd(), attr::NODEV | read_only, directory)?;
                attach(&mount, &slash, directory)?;
                Ok(MountedRoot { directory: mount, tree: None, changes: None })
            }
            Self::Protected(directory, upper) => protect(directory, upper, own, &slash),
            Self::Overlay(layers, upper) => {
                let layers = Layer::open_all(layers)?;
                let root = Path::new("/");
                let mut changes = Changes::open(upper, root, &slash)?;
                let writable = changes.writable(root, layers.last());
                let mount = writable.and_then(|writable| {
                    let mount = overlay(&layers, &writable, 0, &slash)?;
                    let paths = layers.iter().map(Layer::real_path).collect::<Result<_>>()?;
                    changes.add(root, &writable, paths, &mount)?;
                    Ok(mount)
                });
                changes.detach()?;
                let mount = mount?;
                attach(&mount, &slash, Path::new("overlay"))?;
                // mountinfo lists the layers from here on, so their locks may end.
                layers.iter().try_for_each(Layer::require_path)?;
                Ok(MountedRoot { directory: mount, tree: None, changes: Some(changes) })
            }
        }
    }
}

/// Mounts overlays of a directory of the host and of the mounts below. An empty tmpfs covers the place of the changes,
/// if the payload would find it: its upper directories are no files of the payload.
fn protect(
    directory: &Path,
    upper: &Upper,
    own: OwnMounts<'_>,
    slash: &OwnedFd,
) -> Result<MountedRoot> {
    let mut changes = Changes::open(upper, Path::new("/"), slash)?;
    let tree = Tree::mount(directory, &mut changes, own.0, slash);
    changes.detach()?;
    let tree = tree?;
    let root = tree.attach(slash, directory)?.try_clone().on("dup", directory)?;
    if let Some(path) = changes.directory()?
        && let Ok(below) =
            path.strip_prefix(std::fs::canonicalize(directory).on("open", directory)?)
    {
        let cover = new_mount("tmpfs", &[("mode", "0555"), ("size", "4k")], attr::RDONLY)?;
        // The place may be in a mount that the payload does not see.
        if let Some(place) = resolve(root.as_fd(), below, Missing::Fail).absent()? {
            attach(&cover, place, &path)?;
        }
    }
    Ok(MountedRoot { directory: root, tree: Some(tree), changes: Some(changes) })
}

impl MountedRoot {
    /// The root of `--bare`.
    pub fn bare(directory: OwnedFd) -> Self {
        Self { directory, tree: None, changes: None }
    }

    /// Writes the file that describes the changes, after all mounts are made.
    pub fn record(&mut self) -> Result<()> {
        self.changes.take().map_or(Ok(()), Changes::record)
    }

    /// Makes the mounts of the root read-only, after all mount points in them are made. The mounts below a directory
    /// without overlay are read-only already.
    pub fn make_read_only(&self) -> Result<()> {
        match &self.tree {
            Some(tree) => tree.restrict(attr::RDONLY),
            None => {
                sys::mount_setattr(self.directory.as_fd(), attr::RDONLY, propagation::KEEP, false)
                    .op("mount_setattr /")
            }
        }
    }
}

/// The source of a bind mount whose changes go elsewhere.
pub struct ProtectedBind {
    tree: Tree,
    changes: Changes,
}

impl ProtectedBind {
    /// Mounts overlays of a directory of the host, for a path of the root, with flags of [`attr`].
    pub fn mount(directory: &Path, upper: &Path, target: &Path, attributes: u64) -> Result<Self> {
        let stat = rustix::fs::stat(directory).on("stat", directory)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            let directory = directory.display();
            return Err(Error::new(format_args!("bind {directory}: upper=DIR needs a directory")));
        }
        let slash = open_dir(Path::new("/"))?;
        let mut changes = Changes::open(&Upper::Directory(upper.to_owned()), target, &slash)?;
        let tree = Tree::mount(directory, &mut changes, &[], &slash)?;
        tree.restrict(attributes)?;
        Ok(Self { tree, changes })
    }

    /// Attaches the mounts at their target, which is made if it is missing.
    pub fn attach(&self, root: impl AsFd, target: &Path) -> Result<()> {
        let place = resolve(root.as_fd(), target, Missing::MakeDir)?;
        self.tree.attach(&place, target).map(drop)
    }

    /// Writes the file that describes the changes, after all mounts are made.
    pub fn record(self) -> Result<()> {
        self.changes.record()
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
