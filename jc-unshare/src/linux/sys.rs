//! System calls that nix and rustix lack, and all unsafe code of this package.
#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;
use nix::sys::signal::{SigSet, Signal};
use rustix::process::Pid;

#[cfg(any(target_env = "musl", test))]
pub(crate) mod heap;
pub(crate) mod memory;
pub mod vfork;

/// Namespace flags of clone(2), as clone3(2) takes them (`CLONE_NEWTIME` does not fit the old call).
pub mod clone {
    use nix::libc;

    /// A new mount namespace.
    pub const NEWNS: u64 = libc::CLONE_NEWNS as u64;
    /// A new UTS namespace.
    pub const NEWUTS: u64 = libc::CLONE_NEWUTS as u64;
    /// A new IPC namespace.
    pub const NEWIPC: u64 = libc::CLONE_NEWIPC as u64;
    /// A new network namespace.
    pub const NEWNET: u64 = libc::CLONE_NEWNET as u64;
    /// A new PID namespace.
    pub const NEWPID: u64 = libc::CLONE_NEWPID as u64;
    /// A new user namespace.
    pub const NEWUSER: u64 = libc::CLONE_NEWUSER as u64;
    /// A new cgroup namespace.
    pub const NEWCGROUP: u64 = libc::CLONE_NEWCGROUP as u64;
    /// A new time namespace.
    pub const NEWTIME: u64 = 0x80;
}

/// The user namespace that owns a namespace (ioctl_nsfs(2)). `EPERM`: the owner is neither the user namespace of this
/// process nor below it.
pub fn owner(namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const NS_GET_USERNS: u64 = 0xb701;
    // SAFETY: the request takes no argument.
    let fd = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS as _) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, which has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The result of [`fork`] in each of the two processes.
pub enum Fork {
    /// This process is the child.
    Child,
    /// This process is the parent.
    Parent {
        /// The PID of the child in the caller's PID namespace.
        pid: Pid,
        /// A close-on-exec descriptor of the child, which stays that of the child when the PID is reused.
        pidfd: OwnedFd,
    },
}

/// Forks by clone3(2). The child starts in new namespaces by `flags` ([`clone`]), and in `cgroup`, an open cgroup
/// v2 directory. clone(2) is the fallback where the kernel or a seccomp filter lacks clone3(2). `ENOSYS`: the
/// fallback has neither time namespaces nor cgroups.
///
/// The caller must have one thread, since a lock of another thread would stay locked in the child. libc keeps the
/// caller's thread ID in the child, so raise(3) there would signal the parent.
pub fn fork(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Fork> {
    let mut pidfd: RawFd = -1;
    let mut args = clone_args(flags, cgroup, &mut pidfd);
    // SAFETY: without CLONE_VM and without a stack the child runs on a copy of this memory, as after
    // fork(2). `args` and `pidfd` outlive the call.
    let mut pid =
        unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    if pid < 0
        && io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS)
        && cgroup.is_none()
        && flags & clone::NEWTIME == 0
    {
        let flags = args.flags | args.exit_signal;
        // SAFETY: as above; clone(2) returns the pidfd through its third argument.
        pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, &raw mut pidfd, 0, 0) };
    }
    check(pid)?;
    match Pid::from_raw(pid as i32) {
        None => Ok(Fork::Child),
        // SAFETY: the kernel has just made this descriptor, which has no other owner.
        Some(pid) => Ok(Fork::Parent { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
    }
}

/// Arguments of clone3(2). The kernel writes the child's descriptor to `pidfd`.
fn clone_args(flags: u64, cgroup: Option<BorrowedFd<'_>>, pidfd: &mut RawFd) -> libc::clone_args {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    // SAFETY: clone_args is plain integers, for which zero means "not used".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | libc::CLONE_PIDFD as u64;
    args.pidfd = std::ptr::from_mut(pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(group) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = group.as_raw_fd() as u64;
    }
    args
}

/// Closes a descriptor in a child without dropping its owner, since the parent still uses the descriptor.
pub fn close(fd: BorrowedFd<'_>) {
    // SAFETY: only a child that shares no descriptor table with its parent calls this function, before execve(2).
    unsafe { libc::close(fd.as_raw_fd()) };
}

/// unshare(2) with flags of [`clone`].
pub fn unshare(flags: u64) -> io::Result<()> {
    // SAFETY: unshare(2) of namespaces changes no memory of the caller.
    check(unsafe { libc::syscall(libc::SYS_unshare, flags) })
}

/// setns(2): enters the namespaces of `fd`, which must be of the kinds in `flags`.
pub fn setns(fd: BorrowedFd<'_>, flags: u64) -> io::Result<()> {
    // SAFETY: setns(2) changes no memory of the caller.
    check(unsafe { libc::syscall(libc::SYS_setns, fd.as_raw_fd(), flags) })
}

/// Whether a descriptor is open, and a program that this process executes inherits it.
pub fn is_inherited(number: u32) -> bool {
    // SAFETY: fcntl(2) with F_GETFD touches no memory, and fails if the descriptor is not open.
    RawFd::try_from(number).is_ok_and(|number| unsafe { libc::fcntl(number, libc::F_GETFD) } == 0)
}

/// Takes ownership of a descriptor that this program inherited, and marks it close-on-exec. `EBADF`: the
/// descriptor is not open.
pub fn take_fd(number: u32) -> io::Result<OwnedFd> {
    let number = RawFd::try_from(number).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: fcntl(2) with F_SETFD touches no memory, and fails if the descriptor is not open.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) }.into())?;
    // SAFETY: the descriptor is open, and its number comes from the command line, so it has no other owner here.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Borrows a descriptor that this program inherited. Inherited descriptors stay open as long as this process lives, so
/// the borrow has no end. `EBADF`: the descriptor is not open for writing.
pub fn writable_fd(number: u32) -> io::Result<BorrowedFd<'static>> {
    let bad = || io::Error::from_raw_os_error(libc::EBADF);
    let number = RawFd::try_from(number).map_err(|_| bad())?;
    // SAFETY: fcntl(2) with F_GETFL touches no memory, and fails if the descriptor is not open.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFL) };
    check(flags.into())?;
    if flags & libc::O_ACCMODE == libc::O_RDONLY {
        return Err(bad());
    }
    // SAFETY: the descriptor is open, and this process never closes it.
    Ok(unsafe { BorrowedFd::borrow_raw(number) })
}

/// Ignores SIGPIPE, as the standard library does at the start of a program.
pub fn ignore_sigpipe() {
    // SAFETY: SIG_IGN installs no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Discards the SIGPIPE of a write(2) that failed with EPIPE. A blocked signal stays pending even if it is
/// ignored, and a waiting link would forward it.
pub fn discard_sigpipe() {
    let (pipe, now) = (SigSet::from(Signal::SIGPIPE), libc::timespec { tv_sec: 0, tv_nsec: 0 });
    // SAFETY: sigtimedwait(2) reads the first and the third argument, and writes nothing to a null pointer. Its error
    // means that no signal is pending.
    unsafe { libc::sigtimedwait(pipe.as_ref(), std::ptr::null_mut(), &raw const now) };
}

/// pidfd_send_signal(2) by number, since nix and rustix have no names for real-time signals.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: with a null pointer the kernel fills the siginfo in, as for kill(2).
    check(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, no_info, 0)
    })
}

/// kill(2) by number, for kernels or seccomp filters without pidfd_send_signal(2).
pub fn kill(pid: Pid, signal: i32) -> io::Result<()> {
    // SAFETY: kill(2) touches no memory of the caller.
    check(unsafe { libc::kill(pid.as_raw_nonzero().get(), signal) }.into())
}

/// sigqueue(3). The child must not be reaped, so that the PID is not reused.
pub fn queue_signal(pid: Pid, signal: i32) -> io::Result<()> {
    let value = libc::sigval { sival_ptr: std::ptr::null_mut() };
    // SAFETY: no receiver uses the value as a pointer.
    check(unsafe { libc::sigqueue(pid.as_raw_nonzero().get(), signal, value) }.into())
}

/// All 64 signals. sigfillset(3) leaves out the signals that libc uses itself, and a payload with another libc may
/// receive these.
pub fn every_signal() -> SigSet {
    // SAFETY: sigset_t is plain integers, a bit for each signal.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        std::ptr::write_bytes(&raw mut set, 0xff, 1);
        SigSet::from_sigset_t_unchecked(set)
    }
}

/// Whether this program inherited an ignored SIGCHLD.
static SIGCHLD_WAS_IGNORED: AtomicBool = AtomicBool::new(false);

/// Sets SIGCHLD to its default action if it is ignored, which execve(2) inherits: the kernel discards exit statuses of
/// children then. A SIGCHLD that has the default action stays as it is, since sigaction(2) would discard the pending
/// signal of a child that has ended.
pub fn default_sigchld() {
    // SAFETY: zeros are a valid sigaction. The first call changes nothing, SIG_DFL installs no handler, and neither call
    // can fail for SIGCHLD.
    unsafe {
        let mut present: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGCHLD, std::ptr::null(), &raw mut present);
        if present.sa_sigaction == libc::SIG_IGN {
            libc::signal(libc::SIGCHLD, libc::SIG_DFL);
            SIGCHLD_WAS_IGNORED.store(true, Ordering::Relaxed);
        }
    }
}

/// Whether SIGCHLD was ignored before [`default_sigchld`].
pub fn was_sigchld_ignored() -> bool {
    SIGCHLD_WAS_IGNORED.load(Ordering::Relaxed)
}

/// Ignores SIGCHLD again if it was ignored before [`default_sigchld`].
pub fn restore_sigchld() {
    if was_sigchld_ignored() {
        // SAFETY: SIG_IGN installs no handler.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    }
}

/// Ends this process. If the filter of a payload that could not be executed denies exit_group(2), the C library would try
/// forever, so the process ends by a fault.
pub fn exit(code: u8) -> ! {
    // SAFETY: the call takes no memory.
    unsafe { libc::syscall(libc::SYS_exit_group, libc::c_int::from(code)) };
    std::process::abort()
}

/// Maps the pages of heap and stack that a start uses with one call (MADV_POPULATE_WRITE, Linux 5.14), in place of
/// one page fault for each page. `arena` is the address and the length of the arena of the heap.
pub fn map_ahead(arena: (usize, usize)) {
    const HEAP: usize = 44 << 10;
    const STACK: usize = 32 << 10;
    let page = rustix::param::page_size();
    let heap = Vec::<u8>::with_capacity(HEAP);
    let here = std::ptr::from_ref(&page) as usize;
    let blocks = [arena, (heap.as_ptr() as usize, HEAP), (here - STACK, STACK)];
    for (start, length) in blocks {
        let first = start.next_multiple_of(page);
        let length = (start + length).saturating_sub(first);
        // SAFETY: the content of the pages does not change. After an error the kernel maps each page at its first use.
        unsafe { libc::madvise(first as _, length, libc::MADV_POPULATE_WRITE) };
    }
}

/// Closes all descriptors except those of `keep`, the standard streams too. The caller must use no other descriptor
/// afterwards. Where the kernel or a seccomp filter lacks close_range(2), /proc/self/fd lists the descriptors. Without
/// a procfs the descriptors stay open.
pub fn close_all_but(keep: &[BorrowedFd<'_>]) {
    let mut keep: Vec<u32> = keep.iter().map(|fd| fd.as_raw_fd() as u32).collect();
    keep.sort_unstable();
    let mut first = 0;
    for next in keep.iter().copied().chain([u32::MAX]) {
        if first < next && close_range(first, next - 1).is_err() {
            return close_listed(&keep);
        }
        first = next.saturating_add(1);
    }
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: close_range(2) changes no memory, and the caller uses none of the descriptors afterwards.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })
}

fn close_listed(keep: &[u32]) {
    let listed = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let number = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
    // The collection ends the iterator, which closes the descriptor of the directory, before the first close.
    let numbers: Vec<u32> = listed.filter_map(number).collect();
    for number in numbers.into_iter().filter(|number| !keep.contains(number)) {
        // SAFETY: as in close_range.
        unsafe { libc::close(number as RawFd) };
    }
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
