//! Mounts of `--bind`, `--device` and `--tmpfs`.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use jc_unshare::mountinfo::MountInfo;
use jc_unshare::{Context, Error, Extent, Maps, Result, Unmapped};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, StatVfsMountFlags, StatxFlags, fstat, fstatvfs, mkdir, statx,
};
use rustix::io::Errno;

use super::fscontext::{attach, clone_mount, new_mount};
use super::resolve::{Missing, resolve};
use crate::TOOL;
use crate::linux::args::mounts::{Bind, Mount, Owners, Source};
use crate::linux::sys::{attr, map_ids, mount_setattr, propagation};
use crate::user::Identity;

/// Creates a detached mount. "/" must be the host's, and its mounts must still be peers of the host's: a bind
/// with propagation inherits the peer group of its source.
fn create(mount: &Mount) -> Result<OwnedFd> {
    match &mount.source {
        Source::Bind(bind) => create_bind(bind, mount.attributes),
        Source::Device(path) => create_device(path, mount.attributes),
        Source::Tmpfs { size, mode } => {
            let mut options = vec![("mode", mode.as_str())];
            options.extend(size.as_deref().map(|size| ("size", size)));
            new_mount("tmpfs", &options, mount.attributes)
        }
    }
}

fn create_device(path: &Path, attributes: u64) -> Result<OwnedFd> {
    let mount = clone_mount(path, false)?;
    match FileType::from_raw_mode(fstat(&mount).on("stat", path)?.st_mode) {
        FileType::CharacterDevice | FileType::BlockDevice => {}
        _ => {
            let path = path.display();
            return Err(Error::new(format_args!("device {path}: not a device file")));
        }
    }
    require_without(&mount, attr::NODEV, "device", path)?;
    mount_setattr(mount.as_fd(), attributes, propagation::PRIVATE, false)
        .on("mount_setattr", path)?;
    Ok(mount)
}

fn create_bind(bind: &Bind, attributes: u64) -> Result<OwnedFd> {
    let path = &bind.path;
    make_directory(bind)?;
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

/// Makes the source of a bind mount, if an option says so.
pub fn make_source(mount: &Mount) -> Result<()> {
    match &mount.source {
        Source::Bind(bind) => make_directory(bind),
        _ => Ok(()),
    }
}

fn make_directory(bind: &Bind) -> Result<()> {
    if !bind.create {
        return Ok(());
    }
    match mkdir(&bind.path, Mode::from_raw_mode(0o755)) {
        Err(Errno::EXIST) => Ok(()),
        made => made.on("mkdir", &bind.path),
    }
}

/// A mount that is not attached yet.
pub struct Detached<'a> {
    mount: &'a Mount,
    fd: OwnedFd,
    /// The user namespace for the owners of a bind mount. None can be made once another root covers that of the host.
    namespace: Option<Unmapped>,
}

impl<'a> Detached<'a> {
    /// Creates the mount as [`create`] does.
    pub fn new(mount: &'a Mount) -> Result<Self> {
        let needs_namespace = matches!(&mount.source, Source::Bind(bind) if bind.owners.is_some());
        let namespace = needs_namespace.then(|| Unmapped::new(TOOL)).transpose();
        let namespace = namespace.map_err(|error| advise_owners(error, &mount.target))?;
        Ok(Self { mount, fd: create(mount)?, namespace })
    }

    /// Maps the owners of a bind mount. `payload` finds the user that an exchange is with.
    pub fn map_owners(&self, payload: impl FnOnce() -> Result<Identity>) -> Result<()> {
        let Some(namespace) = &self.namespace else { return Ok(()) };
        let Source::Bind(Bind { path, recursive, owners: Some(owners), .. }) = &self.mount.source
        else {
            return Ok(());
        };
        let maps = match owners {
            Owners::Ranges(users, groups) => Maps::of(users, groups),
            Owners::Exchanged => {
                let (stat, payload) = (fstat(&self.fd).on("stat", path)?, payload()?);
                let users = Extent::exchanging(stat.st_uid, payload.uid);
                Maps::of(&users, &Extent::exchanging(stat.st_gid, payload.gid))
            }
        };
        let mapped = namespace.map(&maps).and_then(|namespace| {
            map_ids(self.fd.as_fd(), namespace.as_fd(), *recursive).on("idmap", path)
        });
        mapped.map_err(|error| advise_owners(error, path))
    }

    /// Attaches the mount at its target below `root`. A missing target is made, with its parents.
    pub fn attach(&self, root: BorrowedFd<'_>) -> Result<()> {
        attach_at_target(root, self.mount, &self.fd)
    }
}

fn advise_owners(error: Error, path: &Path) -> Error {
    match error.errno().map(Errno::from_raw_os_error) {
        Some(Errno::PERM | Errno::ACCESS) => error.hint(
            "only root outside of user namespaces maps owners of a mount; jc-run --userns keep-id gives files to \
             the caller",
        ),
        Some(Errno::INVAL) => error.hint(format_args!(
            "its file system, or one mounted below, has no ID-mapped mounts: norec leaves out those below, and \
             -u $(stat -c %u:%g {}) runs the program as the owner",
            path.display()
        )),
        _ => error,
    }
}

/// Refuses to clear an attribute of the host's mount. `mount` is an unchanged copy of the mount at `path`.
fn require_without(mount: &OwnedFd, flags: u64, operation: &str, path: &Path) -> Result<()> {
    const NAMES: [(u64, StatVfsMountFlags, &str, &str); 4] = [
        (attr::RDONLY, StatVfsMountFlags::RDONLY, "ro", "rw"),
        (attr::NOSUID, StatVfsMountFlags::NOSUID, "nosuid", "suid"),
        (attr::NODEV, StatVfsMountFlags::NODEV, "nodev", "dev"),
        (attr::NOEXEC, StatVfsMountFlags::NOEXEC, "noexec", "exec"),
    ];
    let has = fstatvfs(mount).on("statvfs", path)?.f_flag;
    let forbidden = NAMES.iter().find(|(flag, it, ..)| flags & flag != 0 && has.contains(*it));
    let Some((_, _, has, allows)) = forbidden else { return Ok(()) };
    let path = path.display();
    Err(Error::new(format_args!("{operation} {path}: its mount is {has}"))
        .hint(format_args!("mount -o remount,bind,{allows}, on the mount that {path} is in")))
}

/// Refuses a propagation that has no effect: the mount of `path` must have one of the optional fields of
/// proc_pid_mountinfo(5).
fn require_peer(path: &Path, fields: &[&str]) -> Result<()> {
    let stat = statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID).on("statx", path)?;
    let id = stat.stx_mnt_id.to_string();
    let table = "/proc/self/mountinfo";
    let mounts = fs::read_to_string(table).on("read", table)?;
    let mount = mounts.lines().filter_map(MountInfo::parse).find(|mount| mount.id == id);
    let optional = mount.map_or("", |mount| mount.optional).split(' ');
    if optional.into_iter().any(|field| fields.iter().any(|known| field.starts_with(known))) {
        return Ok(());
    }
    let path = path.display();
    Err(Error::new(format_args!("bind {path}: its mount has no peer group"))
        .hint(format_args!("mount --make-shared, on the mount that {path} is in, makes one")))
}

/// Attaches a detached mount at its target below `root`. A missing target is made, with its parents.
fn attach_at_target(root: BorrowedFd<'_>, mount: &Mount, fd: &OwnedFd) -> Result<()> {
    let mode = fstat(fd).on("stat", &mount.target)?.st_mode;
    let missing = match FileType::from_raw_mode(mode) {
        FileType::Directory => Missing::MakeDir,
        _ => Missing::MakeFile,
    };
    let target = resolve(root, &mount.target, missing)?;
    attach(fd, &target, &mount.target).map_err(|error| {
        let is_dir = |mode| FileType::from_raw_mode(mode) == FileType::Directory;
        match fstat(&target).map(|stat| (is_dir(mode), is_dir(stat.st_mode))) {
            Ok((true, false)) => {
                error.hint("a directory is mounted on a directory, and this is a file")
            }
            Ok((false, true)) => error.hint("a file is mounted on a file, and this is a directory"),
            _ => error,
        }
    })
}
