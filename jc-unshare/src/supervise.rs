//! The waiting link: a parent that behaves as if its child had been executed in its place. Signals
//! arrive, stops and continues are followed, the exit code is handed on, and when the parent is
//! killed the child dies too.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;

use nix::libc;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal, kill, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, getpgid, getpgrp};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::error::{Context, Error, Result};
use crate::sys::{self, Fork, clone};
use crate::tool::Tool;

/// A child of a waiting link.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
    /// PID 1 of a namespace: the kernel drops signals that it has no handler for.
    is_init: bool,
    /// Held open for as long as this process lives; see [`Lifeline`].
    _alive: OwnedFd,
}

/// What a waiting link did to its child in the kernel's place.
#[derive(Default)]
struct Acted {
    /// SIGKILL was sent as the default action of this signal.
    killed_for: Option<i32>,
    /// SIGSTOP was sent as the default action of this signal, and its effect is still to come.
    stopped_for: Option<Signal>,
}

/// How a child ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exit {
    /// It called exit(3) with this code.
    Code(u8),
    /// This signal killed it.
    Signal(i32),
}

impl Exit {
    /// The shell's encoding, which is the contract's too: the code itself, or 128 + signal.
    pub fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128u8.wrapping_add(signal as u8),
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Starts a child in new namespaces (`flags` of [`clone`]) and, with `cgroup`, inside that cgroup v2
/// directory. It runs `body`, which ends in an exec and so returns only an error; the child reports
/// that as `tool`. The child gets SIGKILL when this process dies, however early.
pub fn spawn(
    tool: Tool,
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
    body: impl FnOnce(&Lifeline) -> Error,
) -> Result<Child> {
    // An ignored SIGCHLD, which execve(2) hands down, would throw the exit status away.
    sys::default_signal(Signal::SIGCHLD);
    let (death, alive) = pipe_with(PipeFlags::CLOEXEC).op("pipe2")?;
    match sys::fork(flags, cgroup).op("clone3")? {
        Fork::Child => {
            drop(alive);
            let life = Lifeline(death);
            let error = match life.hold(Signal::SIGKILL) {
                Ok(()) => body(&life),
                Err(error) => error,
            };
            tool.exit(&error)
        }
        Fork::Parent { pid, pidfd } => Ok(Child {
            pid: Pid::from_raw(pid),
            pidfd,
            is_init: flags & clone::NEWPID != 0,
            _alive: alive,
        }),
    }
}

/// What ties a child to its parent: a pipe whose other end only the parent holds.
pub struct Lifeline(OwnedFd);

impl Lifeline {
    /// Arms PR_SET_PDEATHSIG without its race: files are closed before children are told of a death
    /// (do_exit: exit_files, then exit_notify), so a parent that died too early for the signal has
    /// already hung up the pipe. To be called again after a change of credentials, which disarms it.
    pub fn hold(&self, signal: Signal) -> Result<()> {
        set_pdeathsig(signal).op("PR_SET_PDEATHSIG")?;
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).op("poll")? {
            0 => Ok(()),
            _ => Err(Error::new("the parent died")),
        }
    }
}

impl Child {
    /// The child's pid in this process's PID namespace.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Only waits until the child has ended: for a helper that is not a payload.
    pub fn reap(&self) -> Result<Exit> {
        match waitpid(self.pid, None).op("waitpid")? {
            WaitStatus::Exited(_, code) => Ok(Exit::Code(code as u8)),
            WaitStatus::Signaled(_, signal, _) => Ok(Exit::Signal(signal as i32)),
            other => Err(Error::new(format_args!("waitpid: unexpected {other:?}"))),
        }
    }

    /// Waits until the child has ended. Until then every signal that reaches this process is handed
    /// on, and a child that the terminal stops stops this process too, so that the shell sees it.
    pub fn wait(&self) -> Result<Exit> {
        self.wait_with(|| ())
    }

    /// Waits like [`wait`](Self::wait), and calls `reap` whenever some child has changed state: for
    /// a PID 1, which inherits orphans.
    pub fn wait_with(&self, reap: impl Fn()) -> Result<Exit> {
        // From here on signals wait for us; before, the default action was right: it ends this
        // process, and with it the child, which has not come to its exec yet.
        let all = SigSet::all();
        all.thread_block().op("sigprocmask")?;
        let signals = SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC).op("signalfd")?;
        let mut acted = Acted::default();
        loop {
            // The child first: it may have ended before its SIGCHLD could reach the signalfd.
            if let Some(exit) = self.poll(&mut acted)? {
                return Ok(exit);
            }
            reap();
            if let Some(info) = signals.read_signal().op("read signalfd")?
                && info.ssi_signo as i32 != libc::SIGCHLD
            {
                self.forward(&info, &mut acted)?;
            }
        }
    }

    /// Sees to a change of the child's state.
    fn poll(&self, acted: &mut Acted) -> Result<Option<Exit>> {
        let flags = WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED;
        match waitpid(self.pid, Some(flags)).op("waitpid")? {
            WaitStatus::Exited(_, code) => Ok(Some(Exit::Code(code as u8))),
            WaitStatus::Signaled(_, Signal::SIGKILL, _) => {
                Ok(Some(Exit::Signal(acted.killed_for.unwrap_or(libc::SIGKILL))))
            }
            WaitStatus::Signaled(_, signal, _) => Ok(Some(Exit::Signal(signal as i32))),
            WaitStatus::Stopped(_, signal) => {
                // A SIGSTOP from elsewhere is not followed: who sent it will continue only the child.
                let followed = Some(signal).filter(|signal| stops_by_terminal(*signal as i32));
                followed.or(acted.stopped_for.take()).map_or(Ok(()), |signal| self.stop(signal))?;
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// Stops this process as the child was stopped, so that the shell sees a job stopped by it, and
    /// continues the child afterwards: also when the kernel did not stop us, as in an orphaned
    /// process group, where it would not have stopped a plain program.
    fn stop(&self, signal: Signal) -> Result<()> {
        let only = SigSet::from(signal);
        only.thread_unblock().op("sigprocmask")?;
        raise(signal).op("raise")?;
        only.thread_block().op("sigprocmask")?;
        self.send(libc::SIGCONT)
    }

    /// Hands a signal to the child, and where the kernel would drop it there, does what its default
    /// action is.
    fn forward(&self, info: &siginfo, acted: &mut Acted) -> Result<()> {
        let signal = info.ssi_signo as i32;
        let dropped = self.is_init && self.would_drop(signal);
        if !self.has_it_already(info) {
            self.send(signal)?;
        }
        match default_action(signal) {
            Action::Terminate if dropped => {
                acted.killed_for.get_or_insert(signal);
                self.send(libc::SIGKILL)
            }
            Action::Stop if dropped => {
                acted.stopped_for = Signal::try_from(signal).ok();
                self.send(libc::SIGSTOP)
            }
            _ => Ok(()),
        }
    }

    /// The terminal signals the whole foreground process group, the child included.
    fn has_it_already(&self, info: &siginfo) -> bool {
        const SI_KERNEL: i32 = 0x80;
        info.ssi_code == SI_KERNEL && getpgid(Some(self.pid)) == Ok(getpgrp())
    }

    /// Whether the kernel drops this signal, because the child is PID 1 of a namespace and leaves it
    /// at its default (pid_namespaces(7)). A blocked signal is not dropped: it waits to be taken.
    fn would_drop(&self, signal: i32) -> bool {
        let Ok(status) = fs::read_to_string(format!("/proc/{}/status", self.pid)) else {
            return false;
        };
        !["SigBlk:", "SigIgn:", "SigCgt:"].iter().any(|set| in_set(&status, set, signal))
    }

    fn send(&self, signal: i32) -> Result<()> {
        match sys::send_signal(self.pidfd.as_fd(), signal) {
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => self.send_by_pid(signal),
            other => other.op("pidfd_send_signal"),
        }
    }

    /// For kernels or filters without pidfds. The pid cannot be reused: nobody has reaped it.
    fn send_by_pid(&self, signal: i32) -> Result<()> {
        let signal = Signal::try_from(signal).op("kill")?;
        kill(self.pid, signal).op("kill")
    }
}

/// Reads a bit of one of the signal sets in `/proc/PID/status` (proc(5)).
fn in_set(status: &str, set: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix(set));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[derive(Debug, Eq, PartialEq)]
enum Action {
    Terminate,
    Stop,
    None,
}

/// The default action of a signal (signal(7)); core dumps count as the termination that they are.
fn default_action(signal: i32) -> Action {
    match signal {
        libc::SIGCHLD | libc::SIGCONT | libc::SIGURG | libc::SIGWINCH => Action::None,
        signal if stops_by_terminal(signal) => Action::Stop,
        _ => Action::Terminate,
    }
}

fn stops_by_terminal(signal: i32) -> bool {
    matches!(signal, libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU)
}

/// Reaps every ended child but `main`, whose status its owner wants.
pub fn reap_orphans(main: &Child) {
    let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while let Some(pid) = waitid(Id::All, ended).ok().and_then(|status| status.pid()) {
        if pid == main.pid || waitpid(pid, None).is_err() {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_reads_like_the_shells() {
        assert_eq!(Exit::Code(42).code(), 42);
        assert_eq!(Exit::Signal(9).code(), 137);
    }

    #[test]
    fn signal_sets_are_read_as_proc_writes_them() {
        let status = "Name:\tsh\nSigBlk:\t0000000000000000\nSigCgt:\t0000000000014002\n";
        assert!(in_set(status, "SigCgt:", libc::SIGINT));
        assert!(in_set(status, "SigCgt:", libc::SIGTERM));
        assert!(!in_set(status, "SigCgt:", libc::SIGHUP));
        assert!(!in_set(status, "SigBlk:", libc::SIGINT));
        assert!(!in_set(status, "SigIgn:", libc::SIGINT));
    }

    #[test]
    fn default_actions_follow_signal_7() {
        for (signal, action) in [
            (libc::SIGTERM, Action::Terminate),
            (libc::SIGUSR1, Action::Terminate),
            (libc::SIGTSTP, Action::Stop),
            (libc::SIGWINCH, Action::None),
            (libc::SIGCONT, Action::None),
            (64, Action::Terminate),
        ] {
            assert_eq!(default_action(signal), action, "{signal}");
        }
    }
}
