//! The start of a child of a waiting link.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::libc;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::Pid;

use super::child::Child;
use super::lifeline::Lifeline;
use super::program::{Program, calls, error};
use super::sys::vfork::{Started, make_all, vfork};
use super::sys::{self, Fork, clone};
use crate::error::{Context, Error, Result};
use crate::tool::Tool;

/// Starts a child in new namespaces (`flags` of [`clone`]) and in the cgroup v2 directory `cgroup`. The child runs
/// `body`, which executes a program at its end and returns only an error. The child writes the error as `tool`. The
/// kernel kills the child when this process dies, however early.
pub fn spawn(
    tool: Tool,
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
    body: impl FnOnce(&Lifeline) -> Error,
) -> Result<Child> {
    let start = Start::new()?;
    let child = |start: &Start| {
        sys::close(start.alive.as_fd());
        sys::close(start.signals.as_fd());
        let ready = SigSet::empty().thread_set_mask().op("sigprocmask");
        match ready.and_then(|()| start.life.arm(Signal::SIGKILL)) {
            Ok(()) => body(&start.life),
            Err(error) => error,
        }
    };
    start.fork(tool, flags, cgroup, child)
}

/// Starts a child that executes a program, like [`spawn`], but with vfork(2) semantics: the child shares the memory of
/// this process, which waits until the child has executed the program or ended. A copy of the memory would take a
/// third of the time of a start. This process writes an error of the child, whose exit code follows from the error.
/// Signals for the child are pending until its last step.
pub fn spawn_program(
    tool: Tool,
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
    program: Program,
) -> Result<Child> {
    let start = Start::new()?;
    let status = program.status();
    let steps = program.into_steps(&start.life, &start.alive)?;
    let calls = calls(&steps);
    let failed = |failure| {
        let error = error(&steps, failure);
        if let Some(status) = status {
            status.exec_failed(&error);
        }
        error
    };
    let (child, failure) = match vfork(flags, cgroup, tool, &calls) {
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => {
            (start.fork(tool, flags, cgroup, |_| failed(make_all(&calls)))?, None)
        }
        started => {
            let Started { pid, pidfd, failure } = started.op("clone3")?;
            (start.child(flags, pid, pidfd), failure)
        }
    };
    match (failure, status) {
        (Some(failure), _) => tool.report(&failed(failure)),
        (None, Some(status)) => child.report_start(status)?,
        (None, None) => {}
    }
    Ok(child.reporting(status))
}

/// The descriptors of a parent and its child before the start of the child.
struct Start {
    signals: SignalFd,
    life: Lifeline,
    alive: OwnedFd,
}

impl Start {
    fn new() -> Result<Self> {
        sys::default_sigchld();
        let all = sys::every_signal();
        all.thread_block().op("sigprocmask")?;
        let signals = SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC).op("signalfd")?;
        let (life, alive) = Lifeline::new()?;
        Ok(Self { signals, life, alive })
    }

    fn fork(
        self,
        tool: Tool,
        flags: u64,
        cgroup: Option<BorrowedFd<'_>>,
        body: impl FnOnce(&Self) -> Error,
    ) -> Result<Child> {
        match sys::fork(flags, cgroup).op("clone3")? {
            Fork::Child => tool.exit(&body(&self)),
            Fork::Parent { pid, pidfd } => Ok(self.child(flags, pid, pidfd)),
        }
    }

    fn child(self, flags: u64, pid: Pid, pidfd: OwnedFd) -> Child {
        let is_init = flags & clone::NEWPID != 0;
        Child { pid, pidfd, is_init, alive: self.alive, signals: self.signals, status: None }
    }
}
