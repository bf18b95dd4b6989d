//! A command line under ptrace(2): a signal meets one system call of one of its processes, or the call
//! fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, gettid};

use crate::Sandbox;

/// The time limit of a command line of the project, with or without a fault.
const LIMIT: Duration = Duration::from_secs(40);

/// A disturbance of one system call.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    /// The process receives this signal at the start of the call.
    Send(Signal),
    /// The kernel does not execute the call, and the call returns this error.
    Fail(Errno),
}

/// Calls that never fail, or only because of a bug in the program.
const INFALLIBLE: [i64; 35] = [
    libc::SYS_arch_prctl,
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_wait,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpgid,
    libc::SYS_getpgrp,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getsid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sigaltstack,
    libc::SYS_uname,
    libc::SYS_wait4,
    libc::SYS_waitid,
];

/// Whether a call can fail.
pub fn can_fail(number: u64) -> bool {
    !INFALLIBLE.contains(&(number as i64))
}

/// A disturbance, and the system call that it meets.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The process, by the order in which the processes of the project's programs appear.
    pub process: usize,
    /// The call, by its order in the process.
    pub call: usize,
    /// The disturbance of the call.
    pub act: Act,
}

/// A system call that a process has made.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The number of the call.
    pub number: u64,
    /// Whether `main` has begun in the program. The code before `main` belongs to libc and std.
    pub has_begun: bool,
}

/// A command line that has ended.
#[derive(Debug, Default)]
pub struct Ended {
    /// The exit code, or 128 and the signal.
    pub code: i32,
    /// Bytes on the standard output.
    pub stdout: String,
    /// Bytes on the standard error.
    pub stderr: String,
    /// The calls of the project's programs, by process.
    pub calls: Vec<Vec<Call>>,
    /// Whether the fault has met its call.
    pub has_fired: bool,
    /// Processes of the project's programs that a fault in the program has killed, as `PROGRAM SIGNAL`.
    pub crashed: Vec<String>,
    /// Processes that did not end in time.
    pub hung: Vec<String>,
}

/// A process of the command line.
#[derive(Default)]
struct Tracee {
    /// The index among the processes that execute a program of the project; `None` for others.
    place: Option<usize>,
    has_begun: bool,
    /// The error that the present call returns, if the call is to fail.
    failing: Option<Errno>,
}

/// Runs a command line of the project to the end of all of its processes but the payload.
pub fn run(s: &Sandbox, words: &[&str], fault: Option<Fault>) -> Ended {
    let entries = fs::read_dir(s.bin("")).unwrap().flatten();
    let programs: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    run_programs(s, &programs, words, fault, LIMIT)
}

/// Runs a command line until all processes have ended, except those of programs that are not named. After the time
/// limit the processes are killed.
pub fn run_programs(
    s: &Sandbox,
    programs: &[PathBuf],
    words: &[&str],
    fault: Option<Fault>,
    limit: Duration,
) -> Ended {
    let (stdout, stderr) = (s.path("stdout"), s.path("stderr"));
    let wait = "kill -STOP $$; exec \"$@\"";
    let mut command = s.cmd("sh").args(["-c", wait, "sh"]).args(words).into_std();
    command.process_group(0).stdin(Stdio::null());
    command.stdout(fs::File::create(&stdout).unwrap()).stderr(fs::File::create(&stderr).unwrap());
    let root = Pid::from_raw(command.spawn().unwrap().id() as i32);
    waitpid(root, Some(WaitPidFlag::WUNTRACED)).unwrap();
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(root, options).unwrap();
    kill(root, Signal::SIGCONT).unwrap();
    let mut tracer = Tracer {
        root,
        programs: programs.iter().filter_map(identity).collect(),
        fault,
        tracees: BTreeMap::from([(root, Tracee::default())]),
        ended: Ended::default(),
    };
    let (done, watch) = watch(root, limit);
    tracer.follow();
    drop(done);
    let mut ended = tracer.ended;
    ended.hung = watch.join().unwrap();
    ended.stdout = fs::read_to_string(stdout).unwrap_or_default();
    ended.stderr = fs::read_to_string(stderr).unwrap_or_default();
    reap();
    ended
}

/// Reaps all ended children, as PID 1 of the sandbox.
pub fn reap() {
    while !matches!(
        waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)),
        Err(_) | Ok(WaitStatus::StillAlive)
    ) {}
}

/// Kills all processes and returns their command lines, unless the sender is dropped in time.
fn watch(root: Pid, limit: Duration) -> (Sender<()>, JoinHandle<Vec<String>>) {
    let (done, wait) = channel::<()>();
    let watch = move || {
        use std::sync::mpsc::RecvTimeoutError::Timeout;
        if wait.recv_timeout(limit) != Err(Timeout) {
            return Vec::new();
        }
        let state = |pid: i32| {
            let read = |file| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let (stat, place) = (read("stat"), read("wchan"));
            let state = stat.rsplit_once(") ").map_or("?", |(_, rest)| &rest[..1]).to_owned();
            format!("{state} {place}")
        };
        let left = crate::processes::running();
        let left = left.into_iter().map(|(pid, command)| format!("{pid} {} {command}", state(pid)));
        let left = left.collect();
        // kill(2) of -1 spares this process, which is PID 1 of the sandbox.
        kill(Pid::from_raw(-1), Signal::SIGKILL).unwrap();
        let _: nix::Result<()> = kill(root, Signal::SIGKILL);
        left
    };
    (done, thread::spawn(watch))
}

/// The device and inode of a file.
fn identity(path: impl AsRef<Path>) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

struct Tracer {
    root: Pid,
    programs: BTreeSet<(u64, u64)>,
    fault: Option<Fault>,
    tracees: BTreeMap<Pid, Tracee>,
    ended: Ended,
}

impl Tracer {
    fn follow(&mut self) {
        // A parent that was killed in clone(2) may have a child that this process does not know yet.
        while !self.tracees.is_empty() || has_tracees() {
            let status = match waitpid(None, Some(WaitPidFlag::__WALL)) {
                Ok(status) => status,
                // EINVAL: nix has no name for a real-time signal.
                Err(Errno::EINVAL) => continue,
                Err(_) => break,
            };
            match status {
                WaitStatus::Exited(pid, code) => self.has_ended(pid, code),
                WaitStatus::Signaled(pid, signal, _) => {
                    self.has_crashed(pid, signal);
                    self.has_ended(pid, 128 + signal as i32);
                }
                WaitStatus::PtraceEvent(pid, _, event) => self.event(pid, event),
                WaitStatus::PtraceSyscall(pid) => self.call(pid),
                WaitStatus::Stopped(pid, signal) => go_on(pid, Some(signal)),
                _ => {}
            }
        }
    }

    fn has_ended(&mut self, pid: Pid, code: i32) {
        self.tracees.remove(&pid);
        if pid == self.root {
            self.ended.code = code;
        }
    }

    fn has_crashed(&mut self, pid: Pid, signal: Signal) {
        use Signal::{SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS};
        let own = [SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS].contains(&signal);
        if let Some(place) = self.tracees.get(&pid).and_then(|tracee| tracee.place).filter(|_| own)
        {
            self.ended.crashed.push(format!("process {place}: {signal}"));
        }
    }

    fn event(&mut self, pid: Pid, event: i32) {
        const EVENT_STOP: i32 = 128;
        let is_new = !self.tracees.contains_key(&pid);
        if event == libc::PTRACE_EVENT_EXEC || event == EVENT_STOP && is_new {
            let is_ours = identity(format!("/proc/{pid}/exe"))
                .is_some_and(|program| self.programs.contains(&program));
            let tracee = self.tracees.entry(pid).or_default();
            if event == libc::PTRACE_EVENT_EXEC {
                tracee.has_begun = false;
                // The payload: another program, executed by a program of the project.
                if tracee.place.is_some() && !is_ours {
                    self.tracees.remove(&pid);
                    let _: nix::Result<()> = ptrace::detach(pid, None);
                    return;
                }
            } else {
                // The process is a copy of a process whose `main` has begun.
                tracee.has_begun = is_ours;
            }
            if is_ours && tracee.place.is_none() {
                tracee.place = Some(self.ended.calls.len());
                self.ended.calls.push(Vec::new());
            }
        }
        go_on(pid, None);
    }

    fn call(&mut self, pid: Pid) {
        const ENTRY: u8 = 1;
        let Some(tracee) = self.tracees.get_mut(&pid) else { return go_on(pid, None) };
        // The process may have been killed meanwhile.
        let (Ok(info), Ok(mut registers)) = (ptrace::syscall_info(pid), ptrace::getregs(pid))
        else {
            return go_on(pid, None);
        };
        if info.op != ENTRY {
            if let Some(errno) = tracee.failing.take() {
                registers.rax = -(errno as i64) as u64;
                let _: nix::Result<()> = ptrace::setregs(pid, registers);
            }
            return go_on(pid, None);
        }
        let Some(place) = tracee.place else { return go_on(pid, None) };
        let number = registers.orig_rax;
        let populates = libc::MADV_POPULATE_WRITE as u64;
        tracee.has_begun |= number == libc::SYS_madvise as u64 && registers.rdx == populates;
        let calls = &mut self.ended.calls[place];
        let met = self.fault.filter(|fault| (fault.process, fault.call) == (place, calls.len()));
        // Two runs do not make exactly the same calls.
        let fails = tracee.has_begun && can_fail(number);
        let met = met.filter(|fault| match fault.act {
            Act::Send(_) => true,
            Act::Fail(errno) => fails && !is_no_failure(pid, (number, registers.rdi), errno),
        });
        calls.push(Call { number, has_begun: tracee.has_begun });
        self.ended.has_fired |= met.is_some();
        match met.map(|fault| fault.act) {
            Some(Act::Send(signal)) => kill(pid, signal).unwrap(),
            Some(Act::Fail(errno)) => {
                // A filter of seccomp(2) sees the number: that of no call would be notified or denied.
                registers.orig_rax = libc::SYS_getpid as u64;
                tracee.failing = Some(errno);
                let _: nix::Result<()> = ptrace::setregs(pid, registers);
            }
            None => {}
        }
        go_on(pid, None);
    }
}

/// Whether this error of a call is no failure. A write that wakes a runtime through an eventfd(2) fails only with a full
/// counter, which never occurs. A read from the master of a terminal returns EAGAIN if there is no output, and EIO if no
/// process has the terminal open.
fn is_no_failure(pid: Pid, (number, fd): (u64, u64), errno: Errno) -> bool {
    let is_of = |end: &str| {
        let link = fs::read_link(format!("/proc/{pid}/fd/{fd}"));
        link.is_ok_and(|link| link.ends_with(end))
    };
    match number as i64 {
        libc::SYS_write => is_of("anon_inode:[eventfd]"),
        libc::SYS_read => [Errno::EAGAIN, Errno::EIO].contains(&errno) && is_of("ptmx"),
        _ => false,
    }
}

/// Whether this thread traces any process.
fn has_tracees() -> bool {
    // A thread traces a process (ptrace(2)).
    let this = format!("TracerPid:\t{}\n", gettid());
    crate::processes::running().into_iter().any(|(pid, _)| {
        let status = fs::read_to_string(format!("/proc/{pid}/status"));
        status.is_ok_and(|status| status.contains(&this))
    })
}

/// Continues a process up to its next call. A process that was killed meanwhile is no error.
fn go_on(pid: Pid, signal: Option<Signal>) {
    let _: nix::Result<()> = ptrace::syscall(pid, signal);
}
