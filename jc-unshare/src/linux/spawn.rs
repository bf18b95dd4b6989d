//! The start of a child of a waiting link.

use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;

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

/// A child to start.
#[derive(Clone, Copy)]
pub struct NewChild<'a> {
    /// The program that reports errors of the child.
    tool: Tool,
    /// The new namespaces, as flags of [`clone`].
    flags: u64,
    /// The cgroup v2 directory in which the child begins.
    cgroup: Option<BorrowedFd<'a>>,
}

impl<'a> NewChild<'a> {
    /// A child in the namespaces and the cgroup of this process.
    pub const fn of(tool: Tool) -> Self {
        Self { tool, flags: 0, cgroup: None }
    }

    /// Sets the new namespaces, as flags of [`clone`].
    #[must_use]
    pub const fn in_namespaces(self, flags: u64) -> Self {
        Self { flags, ..self }
    }

    /// Sets the cgroup v2 directory.
    #[must_use]
    pub const fn in_cgroup(self, cgroup: Option<BorrowedFd<'a>>) -> Self {
        Self { cgroup, ..self }
    }

    /// Starts a child that runs `body`, which executes a program at its end and returns only an error. The child writes
    /// the error. The kernel kills the child when this process dies, however early.
    pub fn spawn(self, body: impl FnOnce(&Lifeline) -> Error) -> Result<Child> {
        self.spawn_unbound(|life| match life.arm(Signal::SIGKILL) {
            Ok(()) => body(life),
            Err(error) => error,
        })
    }

    /// Starts a child like [`spawn`](Self::spawn), whose `body` decides whether the child ends with this process.
    pub fn spawn_unbound(self, body: impl FnOnce(&Lifeline) -> Error) -> Result<Child> {
        let start = Start::new()?;
        let child = |start: &Start| {
            sys::close(start.alive.as_fd());
            sys::close(start.signals.as_fd());
            match SigSet::empty().thread_set_mask().op("sigprocmask") {
                Ok(()) => body(&start.life),
                Err(error) => error,
            }
        };
        start.fork(self, child)
    }

    /// Starts a child that executes a program, like [`spawn`](Self::spawn), but with vfork(2) semantics: the child
    /// shares the memory of this process, which waits until the child has executed the program or ended. A copy of the
    /// memory would take a third of the time of a start. This process writes an error of the child, whose exit code
    /// follows from the error. Signals for the child are pending until its last step.
    pub fn spawn_program(self, program: Program) -> Result<Child> {
        self.launch(program).map(|(child, _)| child)
    }

    /// Starts a child like [`spawn_program`](Self::spawn_program) that outlives this process. The exit code is 0, or
    /// that of a child which could not execute the program.
    pub fn start_program(self, program: Program) -> Result<ExitCode> {
        match self.launch(program.outliving())? {
            (_, true) => Ok(ExitCode::SUCCESS),
            (child, false) => Ok(child.end()?.into()),
        }
    }

    /// Starts a child that executes a program. Returns whether the child has executed the program.
    fn launch(self, program: Program) -> Result<(Child, bool)> {
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
        let (child, is_executed) = match vfork(self.flags, self.cgroup, self.tool, &calls) {
            Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => {
                let execution = Execution::new()?;
                let body = |_: &Start| execution.fail(failed(make_all(&calls)));
                (start.fork(self, body)?, execution.succeeds()?)
            }
            started => {
                let Started { pid, pidfd, failure } = started.op("clone3")?;
                if let Some(failure) = failure {
                    self.tool.report(&failed(failure));
                }
                (start.child(self.flags, pid, pidfd), failure.is_none())
            }
        };
        if let Some(status) = status.filter(|_| is_executed) {
            child.report_start(status)?;
        }
        Ok((child.reporting(status), is_executed))
    }
}

/// The execution of a program by a child. A pipe to the parent ends with the execution, or has a byte if the child
/// fails.
pub struct Execution {
    reader: PipeReader,
    writer: PipeWriter,
}

impl Execution {
    /// An execution that a child is to begin.
    pub fn new() -> Result<Self> {
        let (reader, writer) = pipe().op("pipe")?;
        Ok(Self { reader, writer })
    }

    /// In the child: reports that the child fails.
    pub fn fail(&self, error: Error) -> Error {
        // A parent that has gone needs no report.
        let _: std::io::Result<usize> = (&self.writer).write(b"!");
        error
    }

    /// In the parent: waits for the end of the pipe. Returns whether the child has executed the program.
    pub fn succeeds(self) -> Result<bool> {
        drop(self.writer);
        let mut reader = self.reader;
        Ok(reader.read(&mut [0]).op("wait for an execution")? == 0)
    }
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

    fn fork(self, new: NewChild<'_>, body: impl FnOnce(&Self) -> Error) -> Result<Child> {
        match sys::fork(new.flags, new.cgroup).op("clone3")? {
            Fork::Child => new.tool.exit(&body(&self)),
            Fork::Parent { pid, pidfd } => Ok(self.child(new.flags, pid, pidfd)),
        }
    }

    fn child(self, flags: u64, pid: Pid, pidfd: OwnedFd) -> Child {
        let is_init = flags & clone::NEWPID != 0;
        Child { pid, pidfd, is_init, alive: self.alive, signals: self.signals, status: None }
    }
}
