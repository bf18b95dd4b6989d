//! Mounts that exist before they are anywhere: fsopen(2), fsconfig(2), fsmount(2), open_tree(2),
//! move_mount(2).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use jc_unshare::{Context, Error, Result, strerror};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree, unmount,
};

use crate::sys;

/// A file system that is being configured.
pub struct FsContext {
    fd: OwnedFd,
    kind: &'static str,
}

impl FsContext {
    /// fsopen(2) of a file system type.
    pub fn open(kind: &'static str) -> Result<Self> {
        let fd = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).on("fsopen", kind)?;
        let context = Self { fd, kind };
        context.set("source", kind)?; // what mountinfo shows
        Ok(context)
    }

    /// Sets an option; the kernel takes at most 255 bytes of value.
    pub fn set(&self, key: &str, value: &str) -> Result<()> {
        self.try_set(key, value).map_err(|e| self.explain(&format!("set {key}={value}"), e))
    }

    /// Sets an option, for callers that know what to do about a kernel without it.
    pub fn try_set(&self, key: &str, value: &str) -> std::result::Result<(), Errno> {
        fsconfig_set_string(&self.fd, key, value)
    }

    /// Makes the file system and a detached mount of it, with flags of [`sys::attr`].
    pub fn mount(self, attributes: u64) -> Result<OwnedFd> {
        fsconfig_create(&self.fd).map_err(|e| self.explain("create", e))?;
        let attributes = MountAttrFlags::from_bits_retain(attributes as u32);
        fsmount(&self.fd, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map_err(|e| self.explain("fsmount", e))
    }

    /// The errno, and what the kernel has written about it into the context, one message a read.
    fn explain(&self, operation: &str, errno: Errno) -> Error {
        let mut text = format!("{operation} {}: {}", self.kind, strerror(&errno.into()));
        let mut message = [0; 512];
        while let Ok(length) = rustix::io::read(&self.fd, &mut message) {
            // "e ", "w " or "i ", then the text.
            let line = String::from_utf8_lossy(message.get(2..length).unwrap_or_default());
            text = format!("{text} ({})", line.trim_end());
        }
        Error::new(text)
    }
}

/// A detached mount of a new file system with these options.
pub fn new_mount(kind: &'static str, options: &[(&str, &str)], attributes: u64) -> Result<OwnedFd> {
    let context = FsContext::open(kind)?;
    for (key, value) in options {
        context.set(key, value)?;
    }
    context.mount(attributes)
}

/// A detached copy of the mounts at `path` and below it.
pub fn clone_tree(path: &Path) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    open_tree(CWD, path, flags).on("open", path)
}

/// Adds attributes to a mount and all below it.
pub fn restrict_tree(mount: BorrowedFd<'_>, attributes: u64, shown: &Path) -> Result<()> {
    sys::mount_setattr(mount, attributes, true).on("mount_setattr", shown)
}

/// Takes the mount that lies uppermost on "/" away again (umount2(2) goes to the top of a stack).
pub fn detach_top() -> Result<()> {
    unmount("/", UnmountFlags::DETACH).on("unmount", "/")
}

/// Puts a detached mount on the place that `target` holds open; `shown` is for the error.
pub fn attach(mount: impl AsFd, target: impl AsFd, shown: &Path) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags).on("mount", shown)
}
