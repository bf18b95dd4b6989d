//! A child that shares the memory of this process until it executes a program, as posix_spawn(3) makes it.
//!
//! A signal can end such a child at any instruction, and this process then continues with the memory as the
//! child has left it. The child therefore runs only [`Call::perform`]: system calls with arguments that this
//! process has prepared. The child allocates no memory, takes no lock and calls no closure. The child writes
//! two values, its report and the name of a script, by one atomic store each.

use std::ffi::{CStr, CString, c_char, c_long};
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use nix::errno::Errno;
use nix::libc;
use rustix::process::Pid;

use super::clone_args;
use crate::error::Kind;
use crate::tool::Tool;

/// A system call that a child makes, with all that the call needs.
#[derive(Debug)]
pub enum Call {
    /// close(2) of a descriptor that only the parent may have open.
    Close(RawFd),
    /// PR_SET_PDEATHSIG with this signal, and then poll(2) of this pipe. If the parent died before the prctl(2),
    /// its end of the pipe is closed, and the child exits.
    DieWithParent(RawFd, i32),
    /// dup3(2): the program inherits the descriptor as this number.
    Inherit(OwnedFd, RawFd),
    /// write(2) of all bytes at once.
    Write(OwnedFd, Vec<u8>),
    /// mount(2) of a new file system, by its type, on a directory.
    Mount(CString, CString, libc::c_ulong),
    /// mount(2) with propagation flags, on `/`.
    Propagate(libc::c_ulong),
    /// SIOCSIFFLAGS (netdevice(7)) that brings the loopback interface up.
    LoopbackUp,
    /// unshare(2) with these flags.
    Unshare(u64),
    /// sethostname(2).
    HostName(Vec<u8>),
    /// setdomainname(2).
    DomainName(Vec<u8>),
    /// sigaction(2) with SIG_DFL.
    DefaultSignal(i32),
    /// sigaction(2) with SIG_IGN.
    IgnoreSignal(i32),
    /// sigprocmask(2) with an empty mask.
    UnblockSignals,
    /// execve(2), as execvp(3) calls it. If the execution of the shell for a script without `#!` fails, the
    /// error has [`BY_SHELL`] added.
    Execute(Program),
}

/// A program with its arguments as execve(2) takes them.
#[derive(Debug)]
pub struct Program {
    /// The paths where the program may be, in order.
    candidates: Vec<CString>,
    /// Whether the paths come from a search of PATH, which passes over absent files.
    is_searched: bool,
    /// Whether the program belongs to the tool, so that its absence is the tool's failure.
    pub is_required: bool,
    /// The shell, the program's argv, and a null pointer. Without the first word they are the program's argv.
    words: Vec<AtomicPtr<c_char>>,
    /// The environment and a null pointer, if it differs from the environment of this process.
    environment: Option<Vec<AtomicPtr<c_char>>>,
    /// The texts that the pointers point to.
    text: Vec<CString>,
}

/// The shell that runs scripts without `#!`.
pub const SHELL: &CStr = c"/bin/sh";

/// The bit that marks the errno of a failed execution of [`SHELL`].
pub const BY_SHELL: i32 = 1 << 16;

impl Program {
    /// A program at the first of these paths that can be executed.
    pub fn new(candidates: Vec<CString>, is_searched: bool, argv: Vec<CString>) -> Self {
        let words = [SHELL].into_iter().chain(argv.iter().map(CString::as_c_str));
        let (words, environment) = (pointers(words), None);
        Self { candidates, is_searched, is_required: false, words, environment, text: argv }
    }

    /// Sets the environment, a list of `NAME=VALUE`.
    pub fn set_environment(&mut self, variables: Vec<CString>) {
        self.environment = Some(pointers(variables.iter().map(CString::as_c_str)));
        // A move of a CString does not move its text.
        self.text.extend(variables);
    }

    /// Executes the program. Returns the errno of the failure.
    fn execute(&self) -> i32 {
        let (Some(argv), Some(name)) = (self.words.get(1..), self.words.get(1)) else {
            return libc::EINVAL;
        };
        let environment = self.environment.as_deref();
        let mut errno = libc::ENOENT;
        for path in &self.candidates {
            match execve(path, argv, environment) {
                libc::ENOENT | libc::ENOTDIR if self.is_searched => {}
                libc::EACCES => errno = libc::EACCES,
                libc::ENOEXEC => {
                    name.store(path.as_ptr().cast_mut(), Ordering::Relaxed);
                    return execve(SHELL, &self.words, environment) | BY_SHELL;
                }
                other => return other,
            }
        }
        errno
    }
}

/// An array of pointers to the words, with a null pointer at its end.
fn pointers<'a>(words: impl Iterator<Item = &'a CStr>) -> Vec<AtomicPtr<c_char>> {
    let pointers = words.map(|word| AtomicPtr::new(word.as_ptr().cast_mut()));
    pointers.chain([AtomicPtr::default()]).collect()
}

fn execve(
    path: &CStr,
    argv: &[AtomicPtr<c_char>],
    environment: Option<&[AtomicPtr<c_char>]>,
) -> i32 {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    // SAFETY: no program of the workspace changes its environment.
    let own = unsafe { environ } as usize;
    let environment = environment.map_or(own, |variables| variables.as_ptr() as usize);
    // An AtomicPtr has the same layout as a pointer.
    let words = [path.as_ptr() as usize, argv.as_ptr() as usize, environment, 0, 0];
    call(libc::SYS_execve, words).err().unwrap_or_default()
}

/// A system call. The call changes only errno and memory that the arguments point to.
fn call(number: c_long, [a, b, c, d, e]: [usize; 5]) -> Result<usize, i32> {
    // SAFETY: all callers are in this file, and pass pointers to memory that they own or borrow.
    match unsafe { libc::syscall(number, a, b, c, d, e) } {
        -1 => Err(Errno::last_raw()),
        result => Ok(result as usize),
    }
}

impl Call {
    /// The kind of failure that an errno of this call means for the tool.
    pub const fn kind(&self, errno: i32) -> Kind {
        match self {
            Self::Execute(program) if !program.is_required => match errno & !BY_SHELL {
                libc::ENOENT => Kind::NotFound,
                _ => Kind::NotExecutable,
            },
            _ => Kind::Failed,
        }
    }

    /// Makes the system call. Fails with an errno.
    pub fn perform(&self) -> Result<(), i32> {
        let done = |number, arguments| call(number, arguments).map(drop);
        match self {
            Self::Close(fd) => done(libc::SYS_close, [*fd as usize, 0, 0, 0, 0]),
            Self::DieWithParent(pipe, signal) => die_with_parent(*pipe, *signal),
            Self::Inherit(fd, number) => {
                done(libc::SYS_dup3, [fd.as_raw_fd() as usize, *number as usize, 0, 0, 0])
            }
            Self::Write(fd, bytes) => write(fd.as_raw_fd(), bytes),
            Self::Mount(kind, directory, flags) => {
                let (kind, directory) = (kind.as_ptr() as usize, directory.as_ptr() as usize);
                done(libc::SYS_mount, [kind, directory, kind, *flags as usize, 0])
            }
            Self::Propagate(flags) => {
                done(libc::SYS_mount, [0, c"/".as_ptr() as usize, 0, *flags as usize, 0])
            }
            Self::LoopbackUp => loopback_up(),
            Self::Unshare(flags) => done(libc::SYS_unshare, [*flags as usize, 0, 0, 0, 0]),
            Self::HostName(name) => {
                done(libc::SYS_sethostname, [name.as_ptr() as usize, name.len(), 0, 0, 0])
            }
            Self::DomainName(name) => {
                done(libc::SYS_setdomainname, [name.as_ptr() as usize, name.len(), 0, 0, 0])
            }
            Self::DefaultSignal(signal) => set_action(*signal, libc::SIG_DFL),
            Self::IgnoreSignal(signal) => set_action(*signal, libc::SIG_IGN),
            Self::UnblockSignals => {
                let none = &raw const NO_SIGNALS as usize;
                let how = libc::SIG_SETMASK as usize;
                done(libc::SYS_rt_sigprocmask, [how, none, 0, size_of::<u64>(), 0])
            }
            Self::Execute(program) => Err(program.execute()),
        }
    }
}

/// An empty signal mask in the layout of the kernel.
static NO_SIGNALS: u64 = 0;

fn die_with_parent(pipe: RawFd, signal: i32) -> Result<(), i32> {
    call(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as usize, signal as usize, 0, 0, 0])?;
    let mut pipe = libc::pollfd { fd: pipe, events: libc::POLLIN, revents: 0 };
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let pipe = &raw mut pipe as usize;
    match call(libc::SYS_ppoll, [pipe, 1, &raw const now as usize, 0, size_of::<u64>()])? {
        0 => Ok(()),
        // The parent has written its error, or was killed.
        _ => exit(125),
    }
}

fn write(fd: RawFd, bytes: &[u8]) -> Result<(), i32> {
    let written = call(libc::SYS_write, [fd as usize, bytes.as_ptr() as usize, bytes.len(), 0, 0])?;
    if written == bytes.len() { Ok(()) } else { Err(libc::EIO) }
}

/// Brings the loopback interface up through a socket. A UNIX socket is the cheapest kind for the ioctl(2).
fn loopback_up() -> Result<(), i32> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
    let socket = call(libc::SYS_socket, [libc::AF_UNIX as usize, kind as usize, 0, 0, 0])?;
    // SAFETY: ifreq has only integers, and zeros are an empty name without flags.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, letter) in request.ifr_name.iter_mut().zip(b"lo") {
        *place = *letter as c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    let request = &raw const request as usize;
    call(libc::SYS_ioctl, [socket, libc::SIOCSIFFLAGS as usize, request, 0, 0])?;
    call(libc::SYS_close, [socket, 0, 0, 0, 0]).map(drop)
}

fn set_action(signal: i32, handler: libc::sighandler_t) -> Result<(), i32> {
    // The struct of the kernel has a handler, flags, a restorer and a mask.
    let action = [handler as u64, 0, 0, 0];
    let action = &raw const action as usize;
    call(libc::SYS_rt_sigaction, [signal as usize, action, 0, size_of::<u64>(), 0]).map(drop)
}

fn exit(code: u8) -> ! {
    loop {
        // exit_group(2) neither returns nor fails.
        let _: Result<usize, i32> = call(libc::SYS_exit_group, [code.into(), 0, 0, 0, 0]);
    }
}

/// The failed call of a child.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Failure {
    /// The index of the call.
    pub index: usize,
    /// The errno of the call.
    pub errno: i32,
}

/// Makes the calls in order. The last call executes a program, so the function returns only if a call fails.
pub fn make_all(calls: &[&Call]) -> Failure {
    for (index, call) in calls.iter().enumerate() {
        if let Err(errno) = call.perform() {
            return Failure { index, errno };
        }
    }
    Failure { index: 0, errno: libc::EINVAL }
}

/// A child of [`vfork`].
pub struct Started {
    /// The PID of the child in the PID namespace of this process.
    pub pid: Pid,
    /// A close-on-exec descriptor of the child, which stays that of the child when the PID is reused.
    pub pidfd: OwnedFd,
    /// The failed call, if the child has executed no program. `None` also if a signal has killed the child.
    pub failure: Option<Failure>,
}

/// The memory of the parent that a child reads and writes.
struct Order<'a> {
    tool: Tool,
    calls: &'a [&'a Call],
    /// The index of the failed call plus one, in the upper half, and its errno in the lower half.
    report: AtomicU64,
}

/// The size of the child's stack in bytes. Its calls need some hundred bytes.
const STACK: usize = 16 << 10;

/// clone3(2) as posix_spawn(3) uses it: the child runs on a stack of its own, and this process waits until
/// the child has executed a program or ended. The child makes `calls` in order. If a call fails, the child ends with
/// the exit code of `tool` for that failure. The child has its own descriptors and signal actions, and runs no
/// signal handler of this process. Flags and errors are those of [`fork`](super::fork), but the error without
/// clone3 is always `ENOSYS`.
pub fn vfork(
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
    tool: Tool,
    calls: &[&Call],
) -> io::Result<Started> {
    const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
    let order = Order { tool, calls, report: AtomicU64::new(0) };
    let mut pidfd: RawFd = -1;
    let mut args = clone_args(flags, cgroup, &mut pidfd);
    args.flags |= (libc::CLONE_VM | libc::CLONE_VFORK) as u64 | CLONE_CLEAR_SIGHAND;
    let result = with_heap_closed(|| start(args, &raw const order, enter));
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result as i32));
    }
    let pid = Pid::from_raw(result as i32).ok_or(io::ErrorKind::Other)?;
    // SAFETY: the kernel has just made this descriptor, which has no other owner.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let report = order.report.into_inner();
    let index = (report >> 32).checked_sub(1);
    let failure = index.map(|index| Failure { index: index as usize, errno: report as i32 });
    Ok(Started { pid, pidfd, failure })
}

/// Calls `act`, which must not allocate memory. With musl's heap, a child that allocates ends at once.
fn with_heap_closed<T>(act: impl FnOnce() -> T) -> T {
    #[cfg(target_env = "musl")]
    return super::super::allocator::HEAP.0.closed(act);
    #[cfg(not(target_env = "musl"))]
    act()
}

extern "C" fn enter(order: *const Order<'_>) -> ! {
    // SAFETY: the order is on the stack of the parent, which waits.
    let order = unsafe { &*order };
    let Failure { index, errno } = make_all(order.calls);
    order.report.store((index as u64 + 1) << 32 | u64::from(errno as u32), Ordering::Relaxed);
    let kind = order.calls.get(index).map_or(Kind::Failed, |call| call.kind(errno));
    exit(order.tool.code(kind))
}

/// clone3(2) with a stack for the child. Returns the PID, or a negative errno.
fn start<T>(
    mut args: libc::clone_args,
    data: *const T,
    enter: extern "C" fn(*const T) -> !,
) -> i64 {
    let mut stack = [MaybeUninit::<u128>::uninit(); STACK / size_of::<u128>()];
    args.stack = stack.as_mut_ptr() as u64;
    args.stack_size = STACK as u64;
    clone3_on_stack(&args, data, enter)
}

/// clone3(2), whose child calls `enter` with `data` on the stack of `args`. Returns the PID, or a negative errno.
fn clone3_on_stack<T>(
    args: &libc::clone_args,
    data: *const T,
    enter: extern "C" fn(*const T) -> !,
) -> i64 {
    let result;
    // SAFETY: the child too returns from the system call, with the same registers, on its own stack, which no other
    // code uses. `enter` never returns. All registers that the kernel may change are named.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") std::ptr::from_ref(args),
            in("rsi") size_of::<libc::clone_args>(),
            in("r12") data,
            in("r13") enter,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x20",
            "blr x21",
            "brk #1",
            "2:",
            inlateout("x0") std::ptr::from_ref(args) => result,
            in("x1") size_of::<libc::clone_args>(),
            in("x8") libc::SYS_clone3,
            in("x20") data,
            in("x21") enter,
        );
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::heap::Heap;
    use rustix::process::{WaitOptions, waitpid};
    use std::alloc::{GlobalAlloc, Layout};

    fn code(pid: i64) -> Option<i32> {
        let pid = Pid::from_raw(pid as i32).unwrap();
        let status = waitpid(Some(pid), WaitOptions::empty()).unwrap().unwrap().1;
        status.exit_status()
    }

    #[test]
    fn a_child_that_allocates_in_the_memory_of_its_parent_ends() {
        extern "C" fn allocate(heap: *const Heap) -> ! {
            // SAFETY: the heap is in the frame of the test, which waits.
            let block = unsafe { (*heap).alloc(Layout::new::<u64>()) };
            exit(u8::from(block.is_null()))
        }
        let heap = Heap::new();
        let mut pidfd = -1;
        let mut args = clone_args(0, None, &mut pidfd);
        args.flags |= (libc::CLONE_VM | libc::CLONE_VFORK) as u64;
        assert_eq!(code(start(args, &raw const heap, allocate)), Some(0));
        assert_eq!(code(heap.closed(|| start(args, &raw const heap, allocate))), Some(125));
        // SAFETY: the layout is not empty.
        assert!(!unsafe { heap.alloc(Layout::new::<u64>()) }.is_null());
    }

    #[test]
    fn a_child_reports_which_call_failed() {
        let calls = [Call::LoopbackUp, Call::Close(-1), Call::UnblockSignals];
        let calls: Vec<&Call> = calls[1..].iter().collect();
        let started = vfork(0, None, Tool::link("jc-x"), &calls).unwrap();
        assert_eq!(started.failure, Some(Failure { index: 0, errno: libc::EBADF }));
        assert_eq!(code(started.pid.as_raw_nonzero().get().into()), Some(125));
    }
}
