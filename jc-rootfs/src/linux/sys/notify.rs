//! User notification of seccomp (seccomp_unotify(2)), and the memory of other processes.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering};

use jc_unshare::supervise::{are_ready, at_end};
use jc_unshare::{Context, Result};
use nix::libc::{self, c_int};

/// A system call that waits for its recorder.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Notification {
    pub id: u64,
    /// The thread, as the PID namespace of this process numbers it.
    pub thread: u32,
    flags: u32,
    /// The number of the call, with the bit of x32.
    pub number: u32,
    /// AUDIT_ARCH of Linux' audit.h.
    pub arch: u32,
    instruction: u64,
    pub arguments: [u64; 6],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

// _IOWR('!', 0, struct seccomp_notif), _IOWR('!', 1, struct seccomp_notif_resp), and _IOW('!', 2, __u64).
const RECEIVE: u32 = 0xC050_2100;
const SEND: u32 = 0xC018_2101;
const IS_VALID: u32 = 0x4008_2102;

/// SECCOMP_USER_NOTIF_FLAG_CONTINUE: the kernel makes the call.
const CONTINUE: u32 = 1;

/// The most threads of a recorder. The kernel wakes each thread that waits for a call, at each call, so a third thread
/// costs more than it brings.
pub const MOST_THREADS: usize = 2;

/// SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (Linux 5.19): a received call is interrupted only by a fatal signal.
pub const WAIT_KILLABLE: u64 = 1 << 5;

/// Waits for a call. `None`: no process has the filter any more.
pub fn receive(listener: BorrowedFd<'_>) -> Result<Option<Notification>> {
    loop {
        // The kernel demands zeros.
        let mut notification = Notification::default();
        // SAFETY: the structure has the size and the layout of `struct seccomp_notif`, which the kernel writes.
        let received = check(unsafe {
            libc::syscall(libc::SYS_ioctl, listener.as_raw_fd(), RECEIVE, &raw mut notification)
        });
        match received {
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            // The caller has gone before the receipt, or all callers have.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                if are_ready(vec![at_end(listener)])?[0] {
                    return Ok(None);
                }
            }
            received => {
                return received.op("SECCOMP_IOCTL_NOTIF_RECV").map(|()| Some(notification));
            }
        }
    }
}

/// Lets the kernel make the call. ENOENT: the caller has gone, or a signal has interrupted the call.
pub fn proceed(listener: BorrowedFd<'_>, id: u64) -> io::Result<()> {
    let response = Response { id, value: 0, error: 0, flags: CONTINUE };
    // SAFETY: the structure has the layout of `struct seccomp_notif_resp`, which the kernel reads.
    check(unsafe {
        libc::syscall(libc::SYS_ioctl, listener.as_raw_fd(), SEND, &raw const response)
    })
}

/// Whether the caller still waits, so that its thread ID is not that of another thread.
pub fn waits(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the kernel reads the number.
    check(unsafe { libc::syscall(libc::SYS_ioctl, listener.as_raw_fd(), IS_VALID, &raw const id) })
        .is_ok()
}

/// The numbers of the last calls that the threads of a recorder have received, which the children of the process see.
#[derive(Clone, Copy, Debug)]
pub struct LastCalls(&'static [AtomicU64; MOST_THREADS]);

impl LastCalls {
    /// The mapping stays until the end of the process.
    pub fn new() -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: the kernel chooses the address of a new mapping.
        let address = unsafe {
            libc::mmap(null_mut(), size_of::<[AtomicU64; MOST_THREADS]>(), access, kind, -1, 0)
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the mapping begins with a page, has zeros, and is never removed.
        Ok(Self(unsafe { &*address.cast::<[AtomicU64; MOST_THREADS]>() }))
    }

    /// Sets the number of a thread's last call.
    pub fn set(self, thread: usize, id: u64) {
        self.0[thread].store(id, Ordering::Relaxed);
    }

    /// The number of each thread that has received a call.
    pub fn get(self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|last| last.load(Ordering::Relaxed)).filter(|id| *id != 0)
    }
}

/// process_vm_readv(2): reads memory of a thread. The result is shorter than the buffer where the memory ends.
pub fn read_memory(thread: u32, address: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: buffer.len() };
    // SAFETY: the kernel writes to the buffer only, and checks the address in the other process.
    let count = unsafe {
        libc::process_vm_readv(thread as c_int, &raw const local, 1, &raw const remote, 1, 0)
    };
    check(count as libc::c_long).map(|()| count as usize)
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
