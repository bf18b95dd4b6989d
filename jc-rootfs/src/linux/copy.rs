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
use jc_unshare::{Context, Error, Result};
use rustix::event::PollFd;
use rustix::process::Pid;

use super::args::Args;
use super::payload::started::Started;
use super::payload::{Host, Place, Ready};
use super::sys;
use crate::TOOL;

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
    watch.tell(pid)?;
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
            // The error itself matters more than who else hears of it.
            let _: std::io::Result<()> = failure.write_all(b"f");
            error
        }
        Err(error) => error,
    }
}

/// What waits for the execution of the program: the pipe from the copy, which then ends, after a byte if the
/// execution has failed.
struct Watch {
    failed: Option<PipeReader>,
    started: Option<Started>,
}

impl Watch {
    fn tell(&mut self, pid: Pid) -> Result<()> {
        let Some(started) = &mut self.started else { return Ok(()) };
        started.name(Process::numbered(pid.as_raw_nonzero().get() as u32)?);
        started.tell()
    }

    /// Reads what is left when the copy has ended.
    fn finish(&mut self) {
        let Some(mut failed) = self.failed.take() else { return };
        if !matches!(failed.read(&mut [0]), Ok(0)) {
            self.started.iter_mut().for_each(Started::take_back);
        }
        self.started = None;
    }
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
