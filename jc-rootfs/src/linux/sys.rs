//! The system calls that nix and rustix lack. The only unsafe code of this package.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc::{self, sock_filter, sock_fprog};
use rustix::process::Pid;

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
    let result = check(unsafe {
        libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    });
    match result {
        // A filter that does not know it yet.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
            close_each_on_exec(first)
        }
        other => other,
    }
}

/// The same, one by one.
fn close_each_on_exec(first: u32) -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_str().and_then(|name| name.parse::<libc::c_int>().ok());
        if let Some(number) = number.filter(|number| *number as u32 >= first) {
            // SAFETY: as above.
            let set = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
            check(set.into())?;
        }
    }
    Ok(())
}

/// seccomp(2) with SECCOMP_SET_MODE_FILTER: the program decides about each later system call of this thread,
/// the only one.
pub fn seccomp_filter(program: &[sock_filter], flags: u64) -> io::Result<()> {
    let len = program.len().try_into().map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let program = sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the program outlives the call. The kernel reads `len` instructions and writes none.
    check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    })
}

/// Sets every signal's disposition to the default: execve(2) would hand down those that are ignored.
/// SIGHUP keeps its own, which is how nohup(1) works. 32 and 33, which the C library would not touch,
/// are among them: somebody may have ignored them all.
pub fn default_signals() -> io::Result<()> {
    /// `struct sigaction` of the kernel, whose zeroes are SIG_DFL, no flags and no mask, on every
    /// architecture.
    const DEFAULT: [u64; 4] = [0; 4];
    // SIGKILL and SIGSTOP are always at their default.
    let stays = |signal: &i32| matches!(*signal, libc::SIGHUP | libc::SIGKILL | libc::SIGSTOP);
    for signal in (1..=64).filter(|signal| !stays(signal)) {
        // SAFETY: the kernel reads `DEFAULT`, which is as large as its structure; SIG_DFL installs no
        // handler.
        check(unsafe {
            let old = std::ptr::null_mut::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, signal, DEFAULT.as_ptr(), old, size_of::<u64>())
        })?;
    }
    Ok(())
}

/// keyctl(2) with KEYCTL_JOIN_SESSION_KEYRING and no name: a new, empty session keyring.
pub fn new_session_keyring() -> io::Result<()> {
    let no_name = std::ptr::null::<libc::c_char>();
    // SAFETY: a null name is allowed and asks for an anonymous keyring.
    check(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, no_name) })
}

/// clone(2) with CLONE_PARENT, as a fork: the new process is a child of this process's parent. Returns its
/// PID, or none in the new process.
pub fn fork_sibling() -> io::Result<Option<Pid>> {
    let flags = libc::CLONE_PARENT | libc::SIGCHLD;
    // SAFETY: without CLONE_VM and with no stack given the new process runs on a copy of this memory, like
    // a child of fork(2). There is one thread, so no lock stays held.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    check(pid.min(0))?;
    Ok(Pid::from_raw(pid as i32))
}

/// execveat(2) of the file that `file` holds. Returns only an error.
pub fn execute(file: BorrowedFd<'_>, arguments: &[CString], environment: &[CString]) -> io::Error {
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: the strings and the arrays, which end in a null, outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    io::Error::last_os_error()
}

/// The array of strings that execve(2) takes.
fn pointers(words: &[CString]) -> Vec<*const libc::c_char> {
    words.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect()
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
