//! The recipe on Linux: a mount namespace, the root with all that belongs in it, pivot, payload.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use jc_unshare::namespaces::unshare;
use jc_unshare::sys::clone;
use jc_unshare::{Context, Error, Result};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::{chdir, fchdir, pivot_root};

use crate::fscontext::{attach, clone_tree, new_mount, restrict_tree};
use crate::payload::{self, Parent, Place};
use crate::resolve::{Missing, resolve};
use crate::root::{Root, make_read_only};
use crate::spec::{Mount, Source};
use crate::{Args, dev};

/// Enters the root and starts the program there. Returns only an error.
pub fn enter(args: &Args, root: &Root, program: &[OsString]) -> Error {
    match prepare(args, root) {
        Ok((place, parent)) => payload::run(args, program, place, parent),
        Err(error) => error,
    }
}

fn prepare(args: &Args, root: &Root) -> Result<(Place, Parent)> {
    let parent = Parent::note()?;
    own_mount_namespace()?;
    // Sources are opened while "/" is still the host's.
    let mounts = detached(args)?;
    let directory = root.attach(args.read_only)?;
    dev::mount_proc(directory.as_fd())?;
    dev::mount_dev(directory.as_fd())?;
    dev::mount_sys(directory.as_fd())?;
    for (mount, fd) in &mounts {
        put(directory.as_fd(), mount, fd)?;
    }
    let place = Place::new(args, directory, Missing::MakeDir)?;
    if args.read_only {
        make_read_only(&place.root.0)?;
    }
    pivot(&place.root.0)?;
    Ok((place, parent))
}

fn own_mount_namespace() -> Result<()> {
    unshare(clone::NEWNS)?;
    // Nothing that is mounted from here on may appear on the host.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).on("make private", "/")
}

/// What `--bind` and `--tmpfs` ask for, outer targets first, mounted nowhere yet.
fn detached(args: &Args) -> Result<Vec<(&Mount, OwnedFd)>> {
    let mut mounts: Vec<&Mount> = args.binds.iter().chain(&args.tmpfs).collect();
    mounts.sort_by_key(|mount| mount.target.components().count());
    mounts.into_iter().map(|mount| Ok((mount, detach(mount)?))).collect()
}

fn detach(mount: &Mount) -> Result<OwnedFd> {
    match &mount.source {
        Source::Bind(path) => {
            let tree = clone_tree(path)?;
            restrict_tree(tree.as_fd(), mount.attributes, path)?;
            Ok(tree)
        }
        Source::Tmpfs { size, mode } => {
            let mut options = vec![("mode", mode.as_str())];
            options.extend(size.as_deref().map(|size| ("size", size)));
            new_mount("tmpfs", &options, mount.attributes)
        }
    }
}

fn put(root: BorrowedFd<'_>, mount: &Mount, fd: &OwnedFd) -> Result<()> {
    let mode = fstat(fd).on("stat", &mount.target)?.st_mode;
    let missing = match FileType::from_raw_mode(mode) {
        FileType::Directory => Missing::MakeDir,
        _ => Missing::MakeFile,
    };
    let target = resolve(root, &mount.target, missing)?;
    attach(fd, &target, &mount.target)
}

/// Makes `root` the root, and takes the host's away. Both arguments of pivot_root(2) may be ".": the
/// old root then lies on top of the new one, so no directory for it is needed.
fn pivot(root: &OwnedFd) -> Result<()> {
    fchdir(root).op("fchdir")?;
    pivot_root(".", ".").map_err(|errno| {
        let error = Err::<(), _>(errno).op("pivot_root");
        let error = error.err().unwrap_or_else(|| Error::new("pivot_root"));
        match errno {
            Errno::INVAL => error.hint("an initramfs cannot be pivoted away: switch_root(8) first"),
            _ => error,
        }
    })?;
    unmount(".", UnmountFlags::DETACH).op("unmount the old root")?;
    chdir(Path::new("/")).on("chdir", "/")
}
