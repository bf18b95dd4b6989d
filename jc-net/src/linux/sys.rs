//! System calls that rustix lacks, and all unsafe code of this package.
#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

/// setsockopt(2) with a number as the value.
pub fn set_socket_option(
    socket: BorrowedFd<'_>,
    level: i32,
    option: i32,
    value: i32,
) -> io::Result<()> {
    let pointer = (&raw const value).cast();
    // SAFETY: the kernel reads the four bytes of `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, pointer, size_of::<i32>() as u32)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The number of messages that had no room in a socket (SK_MEMINFO_DROPS of SO_MEMINFO, `linux/sock_diag.h`).
pub fn dropped(socket: BorrowedFd<'_>) -> io::Result<u32> {
    const SO_MEMINFO: i32 = 55;
    const DROPS: usize = 8;
    let mut values = [0u32; DROPS + 1];
    let mut length = size_of_val(&values) as u32;
    let pointer = values.as_mut_ptr().cast();
    // SAFETY: the kernel writes at most `length` bytes to `values`, which outlives the call.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_MEMINFO, pointer, &mut length)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(values[DROPS]) }
}

/// Waits for a grace period of RCU (membarrier(2)), after which the kernel has freed the sockets of ended processes. A
/// kernel without the call does not wait.
pub fn wait_for_grace_period() {
    const MEMBARRIER_CMD_GLOBAL: i32 = 1;
    // SAFETY: membarrier(2) touches no memory of the caller.
    unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
}

/// Marks each descriptor from this number on as close-on-exec (close_range(2), Linux 5.11).
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: the flag changes what execve(2) does, and no descriptor that is open now.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Installs a seccomp filter for this process and its children. The filter permits only sockets of the families UNIX,
/// INET, INET6 and NETLINK. io_uring, which makes sockets without socket(2), and system calls of other ABIs fail with
/// ENOSYS.
pub fn filter_sockets() -> io::Result<()> {
    let program = socket_filter();
    let program =
        libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    let pointer = &raw const program;
    // SAFETY: PR_SET_NO_NEW_PRIVS takes numbers only.
    let denied = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    if denied < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel copies the program, which outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, pointer) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The instructions of [`filter_sockets`] (seccomp(2)).
fn socket_filter() -> Vec<libc::sock_filter> {
    #[cfg(target_arch = "x86_64")]
    const ARCH: u32 = 0xc000_003e;
    #[cfg(target_arch = "aarch64")]
    const ARCH: u32 = 0xc000_00b7;
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    /// The bit that is set in all numbers of the x32 ABI, and in no number of another ABI.
    const X32: u32 = 0x4000_0000;
    /// Offsets in struct seccomp_data; the lower half of the first argument comes first.
    const NUMBER: u32 = 0;
    const ARCHITECTURE: u32 = 4;
    const FIRST_ARGUMENT: u32 = 16;
    let calls = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    let step = |code: u16, k: u32, jt: u8, jf: u8| libc::sock_filter { code, jt, jf, k };
    let refuse = |errno: i32| step(RETURN, libc::SECCOMP_RET_ERRNO | errno as u32, 0, 0);
    let mut program = vec![
        step(LOAD, ARCHITECTURE, 0, 0),
        step(EQUAL, ARCH, 1, 0),
        refuse(libc::ENOSYS),
        step(LOAD, NUMBER, 0, 0),
        step(AT_LEAST, X32, 0, 1),
        refuse(libc::ENOSYS),
    ];
    for call in calls {
        program.extend([step(EQUAL, call as u32, 0, 1), refuse(libc::ENOSYS)]);
    }
    program.extend([
        step(EQUAL, libc::SYS_socket as u32, 2, 0),
        step(EQUAL, libc::SYS_socketpair as u32, 1, 0),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
        step(LOAD, FIRST_ARGUMENT, 0, 0),
    ]);
    for family in families {
        program.extend([
            step(EQUAL, family as u32, 0, 1),
            step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
        ]);
    }
    program.push(refuse(libc::EAFNOSUPPORT));
    program
}
