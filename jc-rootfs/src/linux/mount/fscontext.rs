//! Detached mounts and where they are attached: fsopen(2), fsconfig(2), fsmount(2), open_tree(2), move_mount(2).

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

/// The configuration context of a new file system (fsopen(2)).
pub struct FsContext<'a> {
    fd: OwnedFd,
    kind: &'a str,
}

impl<'a> FsContext<'a> {
    /// Opens a context for a file system type. ENODEV: this kernel lacks the type. EPERM: this process has no
    /// CAP_SYS_ADMIN in the user namespace that owns its mount namespace.
    pub fn open(kind: &'a str) -> Result<Self> {
        Self::open_from(kind, kind)
    }

    /// Opens a context like [`open`](Self::open), for the source of a file system, which mountinfo shows.
    pub fn open_from(kind: &'a str, source: &str) -> Result<Self> {
        let fd = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).on("fsopen", kind)?;
        let context = Self { fd, kind };
        context.set("source", source)?;
        Ok(context)
    }

    /// Sets an option to a value of at most 255 bytes.
    pub fn set(&self, key: &str, value: &str) -> Result<()> {
        self.try_set(key, value).map_err(|e| self.explain(&format!("set {key}={value}"), e))
    }

    /// Sets an option. EINVAL: this kernel lacks the option or refuses the value.
    pub fn try_set(&self, key: &str, value: &str) -> std::result::Result<(), Errno> {
        fsconfig_set_string(&self.fd, key, value)
    }

    /// Sets an option to a file or directory that is open.
    pub fn set_fd(&self, key: &str, fd: &OwnedFd) -> Result<()> {
        fsconfig_set_fd(&self.fd, key, fd).map_err(|e| self.explain(&format!("set {key}"), e))
    }

    /// Calls [`set_fd`](Self::set_fd). `false`: this kernel takes no descriptor for the option (EINVAL), or
    /// for no option of a file system that supports only mount(2) (EOPNOTSUPP).
    pub fn try_set_fd(&self, key: &str, fd: &OwnedFd) -> Result<bool> {
        match fsconfig_set_fd(&self.fd, key, fd) {
            Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                // The messages of this refusal must not appear in a later error.
                let _: String = self.messages();
                Ok(false)
            }
            set => set.map(|()| true).map_err(|e| self.explain(&format!("set {key}"), e)),
        }
    }

    /// Sets an option without a value.
    pub fn set_flag(&self, key: &str) -> Result<()> {
        fsconfig_set_flag(&self.fd, key).map_err(|e| self.explain(&format!("set {key}"), e))
    }

    /// Creates the file system and a detached mount with flags of [`sys::attr`].
    pub fn mount(self, attributes: u64) -> Result<OwnedFd> {
        self.create().map_err(|refusal| refusal.error)?;
        self.fsmount(attributes)
    }

    /// Creates the file system with the options that are set.
    pub fn create(&self) -> std::result::Result<(), Refusal> {
        fsconfig_create(&self.fd).map_err(|errno| {
            let messages = self.messages();
            let is_silent = errno == Errno::INVAL && messages.is_empty();
            Refusal { error: self.error("create", errno, &messages), is_silent }
        })
    }

    /// Creates a detached mount of the file system, after [`create`](Self::create).
    pub fn fsmount(&self, attributes: u64) -> Result<OwnedFd> {
        let attributes = MountAttrFlags::from_bits_retain(attributes as u32);
        fsmount(&self.fd, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map_err(|e| self.explain("fsmount", e))
    }

    /// The error of an operation, with the kernel's messages.
    pub fn explain(&self, operation: &str, errno: Errno) -> Error {
        self.error(operation, errno, &self.messages())
    }

    fn error(&self, operation: &str, errno: Errno, messages: &str) -> Error {
        let error = Err::<(), _>(errno).on(operation, self.kind).err();
        error.unwrap_or_else(|| Error::new(operation)).detail(messages)
    }

    /// The kernel's messages. Each read(2) returns one: "e ", "w " or "i ", and the text.
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

/// A failure to create a file system.
pub struct Refusal {
    /// The error with the kernel's messages.
    pub error: Error,
    /// Whether the errno is EINVAL and the kernel wrote no message, as with a file system that supports only
    /// mount(2).
    pub is_silent: bool,
}

/// Creates a file system and a detached mount with flags of [`sys::attr`].
pub fn new_mount(kind: &str, options: &[(&str, &str)], attributes: u64) -> Result<OwnedFd> {
    let context = FsContext::open(kind)?;
    for (key, value) in options {
        context.set(key, value)?;
    }
    context.mount(attributes)
}

/// Creates a detached copy of the mount at `path`, and if `recursive` of all mounts below.
pub fn clone_mount(path: &Path, recursive: bool) -> Result<OwnedFd> {
    open_tree(CWD, path, clone_flags(recursive)).on("open_tree", path)
}

/// Creates a detached copy of the mounts at `path` and below.
pub fn clone_tree(path: &Path) -> Result<OwnedFd> {
    clone_mount(path, true)
}

/// Creates a detached copy of the mount of an open file. `shown` is the path in an error.
pub fn clone_fd(fd: impl AsFd, recursive: bool, shown: &Path) -> Result<OwnedFd> {
    open_tree(fd, "", clone_flags(recursive) | OpenTreeFlags::AT_EMPTY_PATH).on("open_tree", shown)
}

fn clone_flags(recursive: bool) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive { flags | OpenTreeFlags::AT_RECURSIVE } else { flags }
}

/// Adds flags of [`sys::attr`] to a mount and all mounts below. `shown` is the path in an error.
pub fn restrict_tree(mount: BorrowedFd<'_>, attributes: u64, shown: &Path) -> Result<()> {
    sys::mount_setattr(mount, attributes, propagation::KEEP, true).on("mount_setattr", shown)
}

/// Detaches the uppermost mount on "/", which is the one that umount2(2) finds.
pub fn detach_top() -> Result<()> {
    unmount("/", UnmountFlags::DETACH).on("unmount", "/")
}

/// Attaches a detached mount on an open file or directory. `shown` is the path in an error.
pub fn attach(mount: impl AsFd, target: impl AsFd, shown: &Path) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags).on("mount", shown)
}

/// Attaches a detached mount on a new directory, of a file system that no other process can reach.
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
