//! A child that shares the memory of this process until it executes a program, as posix_spawn(3) makes it.
//!
//! A signal can end such a child at any instruction, and this process then goes on with the memory as the
//! child has left it. So the child runs no code but [`Call::make`]: system calls with arguments that this
//! process has prepared. The child allocates nothing, takes no lock and calls no closure. The two values
//! that the child writes, its report and the name of a script, are one atomic store each.

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
    /// close(2), of a descriptor that only the parent is to hold.
    Close(RawFd),
    /// PR_SET_PDEATHSIG without its race: poll(2) then sees whether the parent has hung up this pipe. If
    /// the parent is dead, the child ends here.
    DieWithParent(RawFd, i32),
    /// dup3(2): the program inherits the descriptor as this number.
    Inherit(OwnedFd, RawFd),
    /// write(2) of all of it at once.
    Write(OwnedFd, Vec<u8>),
    /// mount(2) of a new file system, by its type, on a directory.
    Mount(CString, CString, libc::c_ulong),
    /// mount(2) with propagation flags, on `/`.
    Propagate(libc::c_ulong),
    /// SIOCSIFFLAGS (netdevice(7)) that brings the loopback interface up.
    LoopbackUp,
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
    /// execve(2), as execvp(3) calls it. If the program is a script that only the shell could run, the
    /// error has [`BY_SHELL`] added.
    Execute(Program),
}

/// A program with its arguments as execve(2) takes them.
#[derive(Debug)]
pub struct Program {
    /// The paths where the program may be, in order.
    candidates: Vec<CString>,
    /// Whether the paths come from a search, which goes on where there is no such file.
    is_searched: bool,
    /// Whether the program belongs to the tool, so that its absence is the tool's failure.
    pub is_required: bool,
    /// The shell, then the program's argv, and a null pointer: without the first it is the program's.
    words: Vec<AtomicPtr<c_char>>,
    /// The environment and a null pointer, if it differs from the environment of this process.
    environment: Option<Vec<AtomicPtr<c_char>>>,
    /// Where the pointers point to.
    text: Vec<CString>,
}

/// The shell that runs scripts without `#!`.
pub const SHELL: &CStr = c"/bin/sh";

/// Is added to an errno with which the execution of [`SHELL`] has failed.
pub const BY_SHELL: i32 = 1 << 16;

impl Program {
    /// A program at the first of these paths that can be executed.
    pub fn new(candidates: Vec<CString>, is_searched: bool, argv: Vec<CString>) -> Self {
        let words = [SHELL].into_iter().chain(argv.iter().map(CString::as_c_str));
        let (words, environment) = (pointers(words), None);
        Self { candidates, is_searched, is_required: false, words, environment, text: argv }
    }

    /// Gives it this environment, `NAME=VALUE` each.
    pub fn set_environment(&mut self, variables: Vec<CString>) {
        self.environment = Some(pointers(variables.iter().map(CString::as_c_str)));
        // A move of a CString leaves its text where it is.
        self.text.extend(variables);
    }

    /// Executes the program. Returns why that failed.
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

/// Pointers to words, and a null pointer.
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
    // An atomic pointer is in memory as a pointer is.
    let words = [path.as_ptr() as usize, argv.as_ptr() as usize, environment, 0, 0];
    call(libc::SYS_execve, words).err().unwrap_or_default()
}

/// A system call. It changes only memory that the arguments point to, and errno.
fn call(number: c_long, [a, b, c, d, e]: [usize; 5]) -> Result<usize, i32> {
    // SAFETY: the callers are in this file; they pass pointers to what they own or borrow.
    match unsafe { libc::syscall(number, a, b, c, d, e) } {
        -1 => Err(Errno::last_raw()),
        result => Ok(result as usize),
    }
}

impl Call {
    /// The kind of failure of a tool that an errno of this call is.
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
    pub fn make(&self) -> Result<(), i32> {
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

/// A signal mask as the kernel has it.
static NO_SIGNALS: u64 = 0;

fn die_with_parent(pipe: RawFd, signal: i32) -> Result<(), i32> {
    call(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as usize, signal as usize, 0, 0, 0])?;
    let mut pipe = libc::pollfd { fd: pipe, events: libc::POLLIN, revents: 0 };
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let pipe = &raw mut pipe as usize;
    match call(libc::SYS_ppoll, [pipe, 1, &raw const now as usize, 0, size_of::<u64>()])? {
        0 => Ok(()),
        // The parent has said of what it failed, and who killed it knows.
        _ => exit(125),
    }
}

fn write(fd: RawFd, bytes: &[u8]) -> Result<(), i32> {
    let written = call(libc::SYS_write, [fd as usize, bytes.as_ptr() as usize, bytes.len(), 0, 0])?;
    if written == bytes.len() { Ok(()) } else { Err(libc::EIO) }
}

/// By a socket of any kind; this kind has the least to set up. The exec closes it.
fn loopback_up() -> Result<(), i32> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
    let socket = call(libc::SYS_socket, [libc::AF_UNIX as usize, kind as usize, 0, 0, 0])?;
    // SAFETY: ifreq is plain integers, an empty name and no flags.
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
    // The kernel's own struct: a handler, flags, a restorer and a mask.
    let action = [handler as u64, 0, 0, 0];
    let action = &raw const action as usize;
    call(libc::SYS_rt_sigaction, [signal as usize, action, 0, size_of::<u64>(), 0]).map(drop)
}

fn exit(code: u8) -> ! {
    loop {
        // Does not return, nor can it fail.
        let _: Result<usize, i32> = call(libc::SYS_exit_group, [code.into(), 0, 0, 0, 0]);
    }
}

/// The call at which a child has ended, by its place, and the errno.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Failure {
    /// The place of the call.
    pub place: usize,
    /// The errno of the call.
    pub errno: i32,
}

/// Makes the calls in order, of which the last executes a program. Returns only if one fails.
pub fn follow(calls: &[&Call]) -> Failure {
    for (place, call) in calls.iter().enumerate() {
        if let Err(errno) = call.make() {
            return Failure { place, errno };
        }
    }
    Failure { place: 0, errno: libc::EINVAL }
}

/// A child of [`vfork`].
pub struct Started {
    /// The child as the PID namespace of this process numbers it.
    pub pid: Pid,
    /// Refers to the child for good, however pids are reused. Close-on-exec.
    pub pidfd: OwnedFd,
    /// Why the child has executed no program. A child that a signal has killed leaves none.
    pub failure: Option<Failure>,
}

/// The memory of the parent that a child reads and writes.
struct Order<'a> {
    tool: Tool,
    calls: &'a [&'a Call],
    /// The place of a failure, plus one, in the upper half, and its errno in the lower half.
    report: AtomicU64,
}

/// How much stack a child has: its calls need some hundred bytes.
const STACK: usize = 16 << 10;

/// clone3(2) as posix_spawn(3) uses it: the child runs on a stack of its own, and this process waits until
/// the child has executed a program or ended. The child follows `calls`; if one fails, the child ends with
/// the exit code that `tool` has for it. Descriptors and signal actions are the child's own, and no handler
/// of this process runs there. Flags and errors are those of [`fork`](super::fork), but without clone3 the
/// error is always `ENOSYS`.
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
    // SAFETY: the kernel has just made this descriptor for us.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let report = order.report.into_inner();
    let place = (report >> 32).checked_sub(1);
    let failure = place.map(|place| Failure { place: place as usize, errno: report as i32 });
    Ok(Started { pid, pidfd, failure })
}

/// Calls `act`, which must not allocate: a child that does so ends at once. Only programs that are built with
/// musl have such a heap.
fn with_heap_closed<T>(act: impl FnOnce() -> T) -> T {
    #[cfg(target_env = "musl")]
    return super::super::allocator::HEAP.0.closed(act);
    #[cfg(not(target_env = "musl"))]
    act()
}

extern "C" fn enter(order: *const Order<'_>) -> ! {
    // SAFETY: the order is in the frame of the parent, and the parent waits.
    let order = unsafe { &*order };
    let Failure { place, errno } = follow(order.calls);
    order.report.store((place as u64 + 1) << 32 | u64::from(errno as u32), Ordering::Relaxed);
    let kind = order.calls.get(place).map_or(Kind::Failed, |call| call.kind(errno));
    exit(order.tool.code(kind))
}

/// clone3(2), with a stack for the child. Returns as the kernel does.
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

/// clone3(2), whose child calls `enter` with `data` on the stack that `args` have. Returns what the kernel does.
fn clone3_on_stack<T>(
    args: &libc::clone_args,
    data: *const T,
    enter: extern "C" fn(*const T) -> !,
) -> i64 {
    let result;
    // SAFETY: the child returns from the system call too, with all registers but on the other stack, of
    // which nobody else knows; it never comes back from `enter`. Registers that the kernel may change
    // are named.
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
        assert_eq!(started.failure, Some(Failure { place: 0, errno: libc::EBADF }));
        assert_eq!(code(started.pid.as_raw_nonzero().get().into()), Some(125));
    }
}
