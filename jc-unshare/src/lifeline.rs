//! Dying with one's parent, however early it dies.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::signal::Signal;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::error::{Context, Result};
use crate::program::Step;
use crate::sys::vfork::Call;

/// What ties a child to its parent: a pipe whose other end only the parent holds.
pub struct Lifeline(OwnedFd);

impl Lifeline {
    /// A lifeline, and the end that the parent alone is to hold for as long as it lives.
    pub(crate) fn new() -> Result<(Self, OwnedFd)> {
        let (death, alive) = pipe_with(PipeFlags::CLOEXEC).op("pipe2")?;
        Ok((Self(death), alive))
    }

    /// Arms PR_SET_PDEATHSIG without its race: files are closed before children are told of a death
    /// (do_exit: exit_files, then exit_notify), so a parent that died too early for the signal has
    /// already hung up the pipe. To be called again after a change of credentials, which disarms the
    /// signal. Ends this process if the parent is dead.
    pub fn hold(&self, signal: Signal) -> Result<()> {
        self.step(signal).make()
    }

    /// The same as a step of a child. It refers to the pipe by number.
    pub(crate) fn step(&self, signal: Signal) -> Step {
        let call = Call::DieWithParent(self.0.as_raw_fd(), signal as i32);
        Step::new(call, "PR_SET_PDEATHSIG", "")
    }
}
