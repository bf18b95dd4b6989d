//! A process that answers in place of a recorder that has ended: processes that outlive the program run on, and those
//! of a recorder that was killed end.

use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::exit;

use jc_unshare::supervise::{Child, NewChild, are_ready, at_end};
use jc_unshare::sys::{close_all_but, kill};
use jc_unshare::{Context, Result};
use nix::libc;
use rustix::process::Pid;

use super::super::sys::ignore_signals;
use super::super::sys::notify::{LastCalls, proceed, receive, waits};
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
    /// The kernel closes the pipe at the end of this process, whose threads receive calls until then.
    recorder: ManuallyDrop<PipeWriter>,
    process: Child,
    /// The threads of the recorder write the number of each call here before they answer.
    pub last: LastCalls,
}

impl Keeper {
    /// Starts the process. The recorder must have one thread.
    pub fn start(listener: &OwnedFd, fate: Fate) -> Result<Self> {
        let (reader, recorder) = pipe().op("pipe")?;
        let last = LastCalls::new().op("mmap")?;
        let process =
            NewChild::of(TOOL).spawn_unbound(|_| match keep(listener, reader, fate, last) {
                Ok(()) => exit(0),
                Err(error) => error,
            })?;
        Ok(Self { recorder: ManuallyDrop::new(recorder), process, last })
    }

    /// Ends the process if no process has the filter any more. Else the process lets those run on after the end of this
    /// one.
    pub fn release(mut self, listener: BorrowedFd<'_>) -> Result<()> {
        // The process may have been killed.
        let _: std::io::Result<()> = self.recorder.write_all(b"r");
        if are_ready(vec![at_end(listener)])?[0] {
            drop(ManuallyDrop::into_inner(self.recorder));
            self.process.end()?;
        }
        Ok(())
    }
}

/// Waits for the end of the recorder, and answers in its place until no process has the filter.
fn keep(listener: &OwnedFd, mut reader: PipeReader, fate: Fate, last: LastCalls) -> Result<()> {
    // The signals of the terminal are for the payload.
    ignore_signals().op("rt_sigaction")?;
    close_all_but(&[listener.as_fd(), reader.as_fd()]);
    let mut released = Vec::new();
    reader.read_to_end(&mut released).op("read a pipe")?;
    let runs_on = !released.is_empty() || fate == Fate::Continue;
    proceed_received(listener.as_fd(), last);
    while let Some(call) = receive(listener.as_fd())? {
        if runs_on {
            drop(proceed(listener.as_fd(), call.id));
        } else if let Some(thread) = Pid::from_raw(call.thread as i32)
            && waits(listener.as_fd(), call.id)
        {
            // The process may be ending already.
            let _: std::io::Result<()> = kill(thread, libc::SIGKILL);
        }
    }
    Ok(())
}

/// Lets the kernel make the calls that a killed recorder has received and not answered: their callers would wait for
/// ever. A thread may have been killed before it wrote the number, and the kernel numbers calls consecutively
/// (`seccomp_next_notify_id`). Callers that have gone leave gaps.
fn proceed_received(listener: BorrowedFd<'_>, last: LastCalls) {
    const MOST_GONE: u64 = 64;
    for last in last.get() {
        for id in (0..MOST_GONE).map(|distance| last.wrapping_add(distance)) {
            // ENOENT and EINPROGRESS: no call has the number, or its recorder has answered, or nobody has received it.
            drop(proceed(listener, id));
        }
    }
}
