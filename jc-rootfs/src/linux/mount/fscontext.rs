//! Mounts that exist before they are anywhere: fsopen(2), fsconfig(2), fsmount(2), open_tree(2),
//! move_mount(2).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use jc_unshare::{Context, Error, Result};
use rustix::fs::{CWD, Mode, mkdirat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
    move_mount, open_tree, unmount,
};

use crate::linux::sys::{self, propagation};

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

    /// Sets an option that is a file or directory, to one that is open.
    pub fn set_fd(&self, key: &str, fd: &OwnedFd) -> Result<()> {
        fsconfig_set_fd(&self.fd, key, fd).map_err(|e| self.explain(&format!("set {key}"), e))
    }

    /// [`set_fd`](Self::set_fd), or `false` where this kernel takes no descriptor for the option
    /// (EINVAL), or for any (EOPNOTSUPP: file systems that still know only mount(2)'s way).
    pub fn try_set_fd(&self, key: &str, fd: &OwnedFd) -> Result<bool> {
        match fsconfig_set_fd(&self.fd, key, fd) {
            Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                // The next error must not show this message of the kernel.
                let _: String = self.messages();
                Ok(false)
            }
            set => set.map(|()| true).map_err(|e| self.explain(&format!("set {key}"), e)),
        }
    }

    /// Sets an option that has no value.
    pub fn set_flag(&self, key: &str) -> Result<()> {
        fsconfig_set_flag(&self.fd, key).map_err(|e| self.explain(&format!("set {key}"), e))
    }

    /// Makes the file system and a detached mount of it, with flags of [`sys::attr`].
    pub fn mount(self, attributes: u64) -> Result<OwnedFd> {
        self.create().map_err(|refusal| refusal.error)?;
        self.fsmount(attributes)
    }

    /// Makes the file system of what was set.
    pub fn create(&self) -> std::result::Result<(), Refusal> {
        fsconfig_create(&self.fd).map_err(|errno| {
            let messages = self.messages();
            let without_a_word = errno == Errno::INVAL && messages.is_empty();
            Refusal { error: self.error("create", errno, &messages), without_a_word }
        })
    }

    /// A detached mount of what [`create`](Self::create) has made.
    pub fn fsmount(&self, attributes: u64) -> Result<OwnedFd> {
        let attributes = MountAttrFlags::from_bits_retain(attributes as u32);
        fsmount(&self.fd, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map_err(|e| self.explain("fsmount", e))
    }

    /// The error with what the kernel has to say about it.
    pub fn explain(&self, operation: &str, errno: Errno) -> Error {
        self.error(operation, errno, &self.messages())
    }

    fn error(&self, operation: &str, errno: Errno, messages: &str) -> Error {
        let error = Err::<(), _>(errno).on(operation, self.kind).err();
        error.unwrap_or_else(|| Error::new(operation)).detail(messages)
    }

    /// What the kernel has written into the context, one message a read: "e ", "w " or "i ", then
    /// the text.
    fn messages(&self) -> String {
        let mut messages = String::new();
        let mut message = [0; 512];
        while let Ok(length) = rustix::io::read(&self.fd, &mut message) {
            let text = String::from_utf8_lossy(message.get(2..length).unwrap_or_default());
            messages = format!("{messages} ({})", text.trim_end());
        }
        messages
    }
}

/// A file system that could not be made.
pub struct Refusal {
    /// Why.
    pub error: Error,
    /// EINVAL and no message, as from a file system that knows only mount(2)'s way.
    pub without_a_word: bool,
}

/// A detached mount of a new file system with these options.
pub fn new_mount(kind: &'static str, options: &[(&str, &str)], attributes: u64) -> Result<OwnedFd> {
    let context = FsContext::open(kind)?;
    for (key, value) in options {
        context.set(key, value)?;
    }
    context.mount(attributes)
}

/// A detached copy of the mount at `path` and with `recursive` those below it.
pub fn clone_mount(path: &Path, recursive: bool) -> Result<OwnedFd> {
    open_tree(CWD, path, clone_flags(recursive)).on("open_tree", path)
}

/// A detached copy of the mounts at `path` and below it.
pub fn clone_tree(path: &Path) -> Result<OwnedFd> {
    clone_mount(path, true)
}

/// [`clone_mount`] of what a descriptor holds open; `shown` is for the error.
pub fn clone_fd(fd: impl AsFd, recursive: bool, shown: &Path) -> Result<OwnedFd> {
    open_tree(fd, "", clone_flags(recursive) | OpenTreeFlags::AT_EMPTY_PATH).on("open_tree", shown)
}

fn clone_flags(recursive: bool) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive { flags | OpenTreeFlags::AT_RECURSIVE } else { flags }
}

/// Adds attributes to a mount and all below it.
pub fn restrict_tree(mount: BorrowedFd<'_>, attributes: u64, shown: &Path) -> Result<()> {
    sys::mount_setattr(mount, attributes, propagation::KEEP, true).on("mount_setattr", shown)
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

/// Puts a detached mount on a new directory of a file system that is this process's alone so far.
pub fn attach_below(
    mount: impl AsFd,
    directory: impl AsFd,
    name: &str,
    shown: &Path,
) -> Result<()> {
    mkdirat(&directory, name, Mode::from_raw_mode(0o755)).on("mkdir", shown)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(mount, "", directory, name, flags).on("mount", shown)
}
