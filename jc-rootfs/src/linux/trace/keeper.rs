//! A process that answers in place of a recorder that has ended: processes that outlive the program run on, and those
//! of a recorder that was killed end.

use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::exit;

use jc_unshare::supervise::{Child, NewChild, are_ready, at_end};
use jc_unshare::sys::{close_all_but, kill};
use jc_unshare::{Context, Result};
use nix::libc;
use rustix::process::Pid;

use super::super::sys::ignore_signals;
use super::super::sys::notify::{LastCall, proceed, receive, waits};
use super::tool::TOOL;

/// The fate of the payload after the death of its recorder.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Fate {
    /// The payload ends.
    #[default]
    End,
    /// The payload runs on, and nothing records it.
    Continue,
}

/// The process that waits for the end of the recorder.
#[derive(Debug)]
pub struct Keeper {
    recorder: PipeWriter,
    process: Child,
    /// The recorder writes the number of each call here before it answers.
    pub last: LastCall,
}

impl Keeper {
    /// Starts the process. The recorder must have one thread.
    pub fn start(listener: &OwnedFd, fate: Fate) -> Result<Self> {
        let (reader, recorder) = pipe().op("pipe")?;
        let last = LastCall::new().op("mmap")?;
        let process =
            NewChild::of(TOOL).spawn_unbound(|_| match keep(listener, reader, fate, last) {
                Ok(()) => exit(0),
                Err(error) => error,
            })?;
        Ok(Self { recorder, process, last })
    }

    /// Ends the process if no process has the filter any more. Else the process lets those run on.
    pub fn release(mut self, listener: BorrowedFd<'_>) -> Result<()> {
        // The process may have been killed.
        let _: std::io::Result<()> = self.recorder.write_all(b"r");
        drop(self.recorder);
        if are_ready(vec![at_end(listener)])?[0] {
            self.process.end()?;
        }
        Ok(())
    }
}

/// Waits for the end of the recorder, and answers in its place until no process has the filter.
fn keep(listener: &OwnedFd, mut reader: PipeReader, fate: Fate, last: LastCall) -> Result<()> {
    // The signals of the terminal are for the payload.
    ignore_signals().op("rt_sigaction")?;
    close_all_but(&[listener.as_fd(), reader.as_fd()]);
    let is_released = reader.read(&mut [0]).op("read a pipe")? == 1;
    let runs_on = is_released || fate == Fate::Continue;
    proceed_received(listener.as_fd(), last);
    loop {
        match receive(listener.as_fd()) {
            Ok(call) if runs_on => drop(proceed(listener.as_fd(), call.id)),
            Ok(call) => {
                if let Some(thread) = Pid::from_raw(call.thread as i32)
                    && waits(listener.as_fd(), call.id)
                {
                    // The process may be ending already.
                    let _: std::io::Result<()> = kill(thread, libc::SIGKILL);
                }
            }
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                if are_ready(vec![at_end(listener.as_fd())])?[0] {
                    return Ok(());
                }
            }
            Err(error) => return Err(error).op("SECCOMP_IOCTL_NOTIF_RECV"),
        }
    }
}

/// Lets the kernel make the call that a killed recorder has received and not answered: its caller would wait for ever.
/// The recorder may have been killed before it wrote the number, and the kernel numbers calls consecutively
/// (`seccomp_next_notify_id`). Callers that have gone leave gaps.
fn proceed_received(listener: BorrowedFd<'_>, last: LastCall) {
    const MOST_GONE: u64 = 64;
    if let Some(last) = last.get() {
        for id in (0..MOST_GONE).map(|distance| last.wrapping_add(distance)) {
            // ENOENT and EINPROGRESS: no call has the number, or its recorder has answered, or nobody has received it.
            drop(proceed(listener, id));
        }
    }
}
