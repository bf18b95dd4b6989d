//! Mounts that the command line asks for: made detached, put in their places later.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use jc_unshare::{Context, Error, Result};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, StatVfsMountFlags, StatxFlags, fstat, fstatvfs, mkdir, statx,
};
use rustix::io::Errno;

use super::fscontext::{attach, clone_mount, new_mount};
use super::resolve::{Missing, resolve};
use crate::linux::args::mounts::{Bind, Mount, Source};
use crate::linux::sys::{attr, mount_setattr, propagation};

/// Makes a mount that is nowhere yet. To be called while "/" is still the host's, and its mounts are
/// still peers of the host's: a shared or slave bind is one because its source is.
pub fn detach(mount: &Mount) -> Result<OwnedFd> {
    match &mount.source {
        Source::Bind(bind) => detach_bind(bind, mount.attributes),
        Source::Device(path) => {
            let tree = clone_mount(path, false)?;
            match FileType::from_raw_mode(fstat(&tree).on("stat", path)?.st_mode) {
                FileType::CharacterDevice | FileType::BlockDevice => {}
                _ => {
                    return Err(Error::new(format_args!(
                        "device {}: not a device file",
                        path.display()
                    )));
                }
            }
            require_without(&tree, attr::NODEV, "device", path)?;
            let set = mount_setattr(tree.as_fd(), mount.attributes, propagation::PRIVATE, false);
            set.on("mount_setattr", path)?;
            Ok(tree)
        }
        Source::Tmpfs { size, mode } => {
            let mut options = vec![("mode", mode.as_str())];
            options.extend(size.as_deref().map(|size| ("size", size)));
            new_mount("tmpfs", &options, mount.attributes)
        }
    }
}

fn detach_bind(bind: &Bind, attributes: u64) -> Result<OwnedFd> {
    let path = &bind.path;
    if bind.create {
        match mkdir(path, Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) => {}
            made => made.on("mkdir", path)?,
        }
    }
    match bind.propagation {
        propagation::SHARED => require_peer(path, &["shared:"])?,
        propagation::SLAVE => require_peer(path, &["shared:", "master:"])?,
        _ => {}
    }
    let tree = clone_mount(path, bind.recursive).map_err(|e| match path.symlink_metadata() {
        Err(none) if none.kind() == ErrorKind::NotFound => {
            e.hint("SRC:DST:create makes a directory of that name")
        }
        _ => e,
    })?;
    require_without(&tree, bind.without, "bind", path)?;
    mount_setattr(tree.as_fd(), attributes, bind.propagation, bind.recursive)
        .on("mount_setattr", path)?;
    Ok(tree)
}

/// Refuses to lift what the host's own mount of `path` forbids, whose copy `tree` still is.
fn require_without(tree: &OwnedFd, flags: u64, operation: &str, path: &Path) -> Result<()> {
    const NAMES: [(u64, StatVfsMountFlags, &str, &str); 4] = [
        (attr::RDONLY, StatVfsMountFlags::RDONLY, "ro", "rw"),
        (attr::NOSUID, StatVfsMountFlags::NOSUID, "nosuid", "suid"),
        (attr::NODEV, StatVfsMountFlags::NODEV, "nodev", "dev"),
        (attr::NOEXEC, StatVfsMountFlags::NOEXEC, "noexec", "exec"),
    ];
    let has = fstatvfs(tree).on("statvfs", path)?.f_flag;
    let in_the_way = NAMES.iter().find(|(flag, it, ..)| flags & flag != 0 && has.contains(*it));
    let Some((_, _, has, wanted)) = in_the_way else { return Ok(()) };
    let path = path.display();
    Err(Error::new(format_args!("{operation} {path}: its mount is {has}"))
        .hint(format_args!("mount -o remount,bind,{wanted}, on the mount that {path} is in")))
}

/// Refuses a propagation that would be with nobody: the mount of `path` must have one of the fields
/// in mountinfo (proc(5)).
fn require_peer(path: &Path, fields: &[&str]) -> Result<()> {
    let stat = statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID).on("statx", path)?;
    let id = format!("{} ", stat.stx_mnt_id);
    let table = "/proc/self/mountinfo";
    let mounts = fs::read_to_string(table).on("read", table)?;
    let line = mounts.lines().find(|line| line.starts_with(&id)).unwrap_or_default();
    let optional = line.split(" - ").next().unwrap_or_default().split(' ').skip(6);
    if optional.into_iter().any(|field| fields.iter().any(|wanted| field.starts_with(wanted))) {
        return Ok(());
    }
    let path = path.display();
    Err(Error::new(format_args!("bind {path}: its mount shares nothing with others"))
        .hint(format_args!("mount --make-shared, on the mount that {path} is in, would let it")))
}

/// Puts a detached mount in its place below `root`; what is missing of that is made.
pub fn put(root: BorrowedFd<'_>, mount: &Mount, fd: &OwnedFd) -> Result<()> {
    let mode = fstat(fd).on("stat", &mount.target)?.st_mode;
    let missing = match FileType::from_raw_mode(mode) {
        FileType::Directory => Missing::MakeDir,
        _ => Missing::MakeFile,
    };
    let target = resolve(root, &mount.target, missing)?;
    attach(fd, &target, &mount.target)
}
