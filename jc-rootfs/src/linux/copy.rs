//! A payload in a PID namespace that others are in already.
//!
//! A process that the others see may be looked through, traced and written to by them, if they have
//! CAP_SYS_PTRACE or as many capabilities as the process (CVE-2016-9962, CVE-2019-5736). So the process
//! that they see begins when nothing can be gained from it: in the container's root, with the payload's
//! credentials and filter, and with a read-only mount of jc-rootfs as its program.
//!
//! Three processes take part. The waiting link keeps its root and capabilities and stays outside. A child of it,
//! outside too, takes the payload's place and credentials. The payload is a copy of that child in the PID
//! namespace, and by CLONE_PARENT a child of the waiting link.

use std::ffi::OsString;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use jc_unshare::process::Process;
use jc_unshare::supervise::{Beside, Exit, Lifeline, readable, spawn};
use jc_unshare::sys::{clone, close, setns};
use jc_unshare::{Context, Error, Kind, Result};
use rustix::event::PollFd;
use rustix::process::Pid;

use super::args::Args;
use super::payload::started::Started;
use super::payload::{Host, Place, Ready};
use super::sys;
use crate::TOOL;

/// The most bytes of an error that the waiting link reads.
const LONGEST_ERROR: u64 = 4096;

/// Starts the program in a PID namespace, and waits for it. `enter` is called in the child, and takes it
/// into the root.
pub fn start(
    args: &Args,
    program: &[OsString],
    pids: &OwnedFd,
    mut host: Host,
    enter: impl FnOnce(&mut Host) -> Result<Place>,
) -> Result<ExitCode> {
    let started = host.started.take();
    // Two, as the copy may fail before its PID is written.
    let (mut pid, numbers) = pipe().op("pipe")?;
    let (failed, failure) = pipe().op("pipe")?;
    let child = spawn(TOOL, 0, None, |life| {
        started.iter().for_each(|started| close(started.as_fd()));
        let prepare = || {
            setns(pids.as_fd(), clone::NEWPID).op("setns pid")?;
            let place = enter(&mut host)?;
            Ready::for_copy(args, program, place, host)
        };
        match prepare() {
            Ok(ready) => begin(ready, program, life, &numbers, &failure),
            Err(error) => error,
        }
    })?;
    drop((numbers, failure));
    match child.wait()? {
        Exit::Code(0) => {}
        exit => return Ok(exit.into()), // the child has written why, or a signal ended it
    }
    let mut number = [0; 4];
    pid.read_exact(&mut number).op("read a PID")?;
    let pid =
        Pid::from_raw(i32::from_ne_bytes(number)).ok_or_else(|| Error::new("read a PID: 0"))?;
    let copy = child.succeeded_by(pid)?;
    let mut watch = Watch { failed: Some(failed), started };
    watch.report(pid)?;
    let exit = copy.wait_beside(&mut watch);
    watch.finish();
    exit.map(Into::into)
}

/// Starts the copy. Returns only an error.
fn begin(
    ready: Ready,
    program: &[OsString],
    life: &Lifeline,
    mut numbers: &PipeWriter,
    mut failure: &PipeWriter,
) -> Error {
    match sys::fork_sibling().op("clone") {
        Ok(Some(pid)) => match numbers.write_all(&pid.as_raw_nonzero().get().to_ne_bytes()) {
            Ok(()) => std::process::exit(0),
            Err(error) => Err::<(), _>(error).op("write").err().unwrap_or_else(Error::quiet),
        },
        Ok(None) => {
            let error = ready.finish(program, life);
            // The error goes to stderr too, and matters more than an error of this write.
            let text = [&[TOOL.code(error.kind())], error.to_string().as_bytes()].concat();
            let _: std::io::Result<()> = failure.write_all(&text);
            error
        }
        Err(error) => error,
    }
}

/// Waits for the execution of the program: the pipe from the copy is at its end then, after an exit code and the
/// text of an error if the execution failed.
struct Watch {
    failed: Option<PipeReader>,
    started: Option<Started>,
}

impl Watch {
    /// Writes which process is the payload.
    fn report(&mut self, pid: Pid) -> Result<()> {
        let Some(started) = &mut self.started else { return Ok(()) };
        started.set_payload(Process::numbered(pid.as_raw_nonzero().get() as u32)?);
        started.report()
    }

    /// Reads the pipe to its end.
    fn finish(&mut self) {
        let Some(failed) = self.failed.take() else { return };
        let Some(started) = self.started.take() else { return };
        let mut text = Vec::new();
        // An unreadable pipe is a failure too.
        let read = failed.take(LONGEST_ERROR).read_to_end(&mut text);
        if read.is_err() || !text.is_empty() {
            started.report_failure(&received(&text));
        }
        started.close();
    }
}

/// The error that a copy has written.
fn received(text: &[u8]) -> Error {
    let (code, text) = text.split_first().unwrap_or((&0, text));
    let kinds = [Kind::NotExecutable, Kind::NotFound];
    let kind = kinds.into_iter().find(|kind| TOOL.code(*kind) == *code).unwrap_or(Kind::Failed);
    Error::with_kind(kind, String::from_utf8_lossy(text))
}

impl Beside for Watch {
    fn awaited(&self) -> Vec<PollFd<'_>> {
        self.failed.iter().map(|failed| readable(failed.as_fd())).collect()
    }

    fn attend(&mut self, ready: &[bool]) {
        if ready.contains(&true) {
            self.finish();
        }
    }
}
