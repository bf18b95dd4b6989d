//! A payload in the PID namespace of a running container.
//!
//! Processes of that namespace may read, trace and write to a process that they see, with CAP_SYS_PTRACE or with all
//! capabilities of that process (CVE-2016-9962, CVE-2019-5736). The process that they see therefore begins with the
//! root, the credentials and the filter of the payload, and executes a read-only mount of jc-rootfs.
//!
//! Three processes take part. The waiting link keeps its root and capabilities and stays outside. A child, which is
//! outside too, enters the root and takes the credentials of the payload. The payload begins as a copy of the child in
//! the PID namespace, and is a child of the waiting link (CLONE_PARENT).

use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use jc_unshare::process::Process;
use jc_unshare::supervise::{Exit, Lifeline, NewChild, Poller, readable};
use jc_unshare::sys::{clone, close, setns};
use jc_unshare::{Context, Error, Kind, Result};
use rustix::event::PollFd;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::payload::started::Started;
use super::payload::{Directories, Invocation, Payload, Setup};
use super::seccomp::Listener;
use super::sys;
use crate::TOOL;

/// The most bytes of an error that the waiting link reads.
const LONGEST_ERROR: u64 = 4096;

/// Starts the program in a PID namespace and waits for it. The child calls `enter`, which enters the root.
pub fn start(
    invocation: Invocation<'_>,
    pid_namespace: &OwnedFd,
    mut setup: Setup,
    enter: impl FnOnce(&mut Setup) -> Result<Directories>,
) -> Result<ExitCode> {
    let started = setup.started.take();
    setup.payload = None;
    // The copy may fail before its PID is written, so PIDs and errors have a pipe each.
    let (mut pid, pid_writer) = pipe().op("pipe")?;
    let (failure, failure_writer) = pipe().op("pipe")?;
    let child = NewChild::of(TOOL).spawn(|life| {
        started.iter().for_each(|started| close(started.as_fd()));
        let prepare = || {
            setns(pid_namespace.as_fd(), clone::NEWPID).op("setns pid")?;
            let directories = enter(&mut setup)?;
            Payload::for_copy(invocation, &directories, setup)
        };
        match prepare() {
            Ok(payload) => {
                report_to(&failure_writer, start_copy(payload, invocation, life, &pid_writer))
            }
            Err(error) => report_to(&failure_writer, error),
        }
    })?;
    drop((pid_writer, failure_writer));
    match child.wait()? {
        Exit::Code(0) => {}
        exit => {
            // The child has written the error, or a signal killed it.
            Execution { failure: Some(failure), started }.finish();
            return Ok(exit.into());
        }
    }
    let mut number = [0; 4];
    pid.read_exact(&mut number).op("read a PID")?;
    let pid =
        Pid::from_raw(i32::from_ne_bytes(number)).ok_or_else(|| Error::new("read a PID: 0"))?;
    let copy = child.succeeded_by(pid)?;
    let mut execution = Execution { failure: Some(failure), started };
    execution.report(pid)?;
    if invocation.args.process.no_wait {
        return if execution.finish() { Ok(ExitCode::SUCCESS) } else { Ok(copy.end()?.into()) };
    }
    let exit = copy.wait_polling(&mut execution);
    execution.finish();
    exit.map(Into::into)
}

/// Writes an error to the waiting link.
fn report_to(mut failure_writer: &PipeWriter, error: Error) -> Error {
    // The error goes to stderr too, and matters more than an error of this write.
    let text = [&[TOOL.code(error.kind())], error.to_string().as_bytes()].concat();
    let _: std::io::Result<()> = failure_writer.write_all(&text);
    error
}

/// Starts the copy. Returns only an error, in this process or in the copy.
fn start_copy(
    mut payload: Payload,
    invocation: Invocation<'_>,
    life: &Lifeline,
    pid_writer: &PipeWriter,
) -> Error {
    let listener = payload.listener.take();
    match sys::fork_sibling().op("clone") {
        Ok(Some(pid)) => match report_copy(pid, listener, pid_writer) {
            Ok(()) => std::process::exit(0),
            Err(error) => error,
        },
        Ok(None) => payload.finish(invocation, life),
        // PID 1 of the namespace has ended (pid_namespaces(7)).
        Err(error) if error.errno() == Some(Errno::NOMEM.raw_os_error()) => {
            error.hint("a container whose PID 1 has ended takes no process")
        }
        Err(error) => error,
    }
}

/// Gives the listener of the filter to its agent, and the PID of the copy to the waiting link.
fn report_copy(pid: Pid, listener: Option<Listener>, mut pid_writer: &PipeWriter) -> Result<()> {
    let number = pid.as_raw_nonzero().get();
    if let Some(Err(error)) = listener.map(|listener| listener.send(number as u32)) {
        // The copy waits for an agent, or runs without one.
        kill_process(pid, Signal::KILL).op("kill")?;
        return Err(error);
    }
    pid_writer.write_all(&number.to_ne_bytes()).op("write")
}

/// The execution of the program by the copy. The pipe from the copy ends with the execution, or after an exit code and
/// the text of an error.
struct Execution {
    failure: Option<PipeReader>,
    started: Option<Started>,
}

impl Execution {
    /// Writes the event with the PID of the payload.
    fn report(&mut self, pid: Pid) -> Result<()> {
        let Some(started) = &mut self.started else { return Ok(()) };
        started.set_payload(Process::numbered(pid.as_raw_nonzero().get() as u32)?);
        started.report()
    }

    /// Reads the pipe to its end, and writes an error as an event. Returns whether the program is executed.
    fn finish(&mut self) -> bool {
        let Some(failure) = self.failure.take() else { return true };
        let mut text = Vec::new();
        // An unreadable pipe is a failure too.
        let read = failure.take(LONGEST_ERROR).read_to_end(&mut text);
        let is_executed = read.is_ok() && text.is_empty();
        if let Some(started) = self.started.take() {
            if !is_executed {
                started.report_failure(&parse_error(&text));
            }
            started.close();
        }
        is_executed
    }
}

/// Parses the exit code and text that a copy has written.
fn parse_error(text: &[u8]) -> Error {
    let (code, text) = text.split_first().unwrap_or((&0, text));
    let kinds = [Kind::NotExecutable, Kind::NotFound];
    let kind = kinds.into_iter().find(|kind| TOOL.code(*kind) == *code).unwrap_or(Kind::Failed);
    Error::with_kind(kind, String::from_utf8_lossy(text))
}

impl Poller for Execution {
    fn polled(&self) -> Vec<PollFd<'_>> {
        self.failure.iter().map(|failure| readable(failure.as_fd())).collect()
    }

    fn handle(&mut self, ready: &[bool]) {
        if ready.contains(&true) {
            self.finish();
        }
    }
}
