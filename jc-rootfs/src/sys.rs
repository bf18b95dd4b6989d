//! The system calls that nix and rustix lack. The only unsafe code of this package.
#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

use crate::seccomp::Instruction;

/// Attributes of a mount, as mount_setattr(2) and fsmount(2) take them.
pub mod attr {
    use nix::libc;

    /// Nothing can be changed.
    pub const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
    /// Set-user-ID bits and file capabilities have no effect.
    pub const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
    /// Device files cannot be opened.
    pub const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
    /// Programs cannot be executed.
    pub const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;
}

/// Where later mounts below a mount appear as well (mount_namespaces(7)).
pub mod propagation {
    use nix::libc;

    /// Leave it as it is.
    pub const KEEP: u64 = 0;
    /// Nowhere.
    pub const PRIVATE: u64 = libc::MS_PRIVATE;
    /// Those of the host appear here.
    pub const SLAVE: u64 = libc::MS_SLAVE;
    /// Those of either side appear on the other.
    pub const SHARED: u64 = libc::MS_SHARED;
}

/// mount_setattr(2) on the mount that `mount` is the root of, adding the flags of [`attr`] and
/// setting its [`propagation`]; with `recursive` on every mount below it as well.
pub fn mount_setattr(
    mount: BorrowedFd<'_>,
    set: u64,
    propagation: u64,
    recursive: bool,
) -> io::Result<()> {
    let attr = libc::mount_attr { attr_set: set, attr_clr: 0, propagation, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a NUL-terminated constant, and `attr` outlives the call, which only reads
    // the size that it is told.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    })
}

/// close_range(2) from `first` to the last with CLOSE_RANGE_CLOEXEC: the next program does not get
/// these descriptors.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: setting close-on-exec takes no descriptor away from its owner.
    check(unsafe {
        libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    })
}

/// seccomp(2) with SECCOMP_SET_MODE_FILTER: this thread, the only one, makes no system call from now on
/// that the program refuses.
pub fn seccomp_filter(program: &[Instruction], flags: u64) -> io::Result<()> {
    /// `struct sock_fprog`
    #[repr(C)]
    struct Program {
        length: libc::c_ushort,
        instructions: *const Instruction,
    }
    let length = program.len().try_into().map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let program = Program { length, instructions: program.as_ptr() };
    // SAFETY: the program and its instructions, which are laid out as `struct sock_filter`, outlive
    // the call, and the kernel reads only as many as it is told.
    check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    })
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
