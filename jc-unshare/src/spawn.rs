//! Starting a child of a waiting link.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::libc;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::Pid;

use crate::error::{Context, Error, Result};
use crate::lifeline::Lifeline;
use crate::supervise::Child;
use crate::sys::{self, Fork, clone};
use crate::tool::Tool;

/// Starts a child in new namespaces (`flags` of [`clone`]) and, with `cgroup`, inside that cgroup v2
/// directory. It runs `body`, which ends in an exec and so returns only an error; the child reports
/// that as `tool`. The child gets SIGKILL when this process dies, however early.
pub fn spawn(
    tool: Tool,
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
    body: impl FnOnce(&Lifeline) -> Error,
) -> Result<Child> {
    Start::new()?.fork(tool, flags, cgroup, body)
}

/// Starts a child like [`spawn`], but without a copy of this process's memory, which is a third of
/// what it takes: this process stands still until `body` has come to its exec. So it must go there
/// straight, wait for nobody, and change nothing in memory that is needed afterwards.
pub fn spawn_program(
    tool: Tool,
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
    body: impl FnOnce(&Lifeline) -> Error,
) -> Result<Child> {
    let start = Start::new()?;
    let mut body = Some(body);
    let child = || {
        // Only here: this process has its own table of descriptors.
        sys::close(start.alive.as_fd());
        let error = body.take().map_or_else(Error::quiet, |body| start.become_program(body));
        tool.report(&error);
        tool.code(error.kind())
    };
    match sys::vfork(flags, cgroup, child) {
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => {}
        started => {
            let (pid, pidfd) = started.op("clone3")?;
            return Ok(start.child(flags, pid, pidfd));
        }
    }
    let body = body.ok_or_else(Error::quiet)?;
    start.fork(tool, flags, cgroup, body)
}

/// What a child and its parent need before there is the child.
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
        body: impl FnOnce(&Lifeline) -> Error,
    ) -> Result<Child> {
        match sys::fork(flags, cgroup).op("clone3")? {
            Fork::Child => {
                sys::close(self.alive.as_fd());
                sys::close(self.signals.as_fd());
                tool.exit(&self.become_program(body))
            }
            Fork::Parent { pid, pidfd } => Ok(self.child(flags, pid, pidfd)),
        }
    }

    /// What the child does. Returns only an error.
    fn become_program(&self, body: impl FnOnce(&Lifeline) -> Error) -> Error {
        let ready = SigSet::empty().thread_set_mask().op("sigprocmask");
        match ready.and_then(|()| self.life.hold(Signal::SIGKILL)) {
            Ok(()) => body(&self.life),
            Err(error) => error,
        }
    }

    fn child(self, flags: u64, pid: Pid, pidfd: OwnedFd) -> Child {
        let is_init = flags & clone::NEWPID != 0;
        Child { pid, pidfd, is_init, alive: self.alive, signals: self.signals }
    }
}
