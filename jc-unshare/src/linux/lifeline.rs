//! A pipe and PR_SET_PDEATHSIG, so that a child ends with its parent however early the parent dies.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::signal::Signal;
use rustix::pipe::{PipeFlags, pipe_with};

use super::step::Step;
use super::sys::vfork::Call;
use crate::error::{Context, Result};

/// A pipe from a child to its parent. Only the parent has the other end open.
pub struct Lifeline(OwnedFd);

impl Lifeline {
    /// A lifeline, and the other end of the pipe. The parent keeps the other end open as long as it lives.
    pub(crate) fn new() -> Result<(Self, OwnedFd)> {
        let (death, alive) = pipe_with(PipeFlags::CLOEXEC).op("pipe2")?;
        Ok((Self(death), alive))
    }

    /// Arms PR_SET_PDEATHSIG without its race. The kernel closes the files of a process before it signals the children
    /// (do_exit: exit_files, then exit_notify), so a parent that died before the call has hung up the pipe: this process
    /// then exits. A change of credentials disarms the signal, and needs another call.
    pub fn arm(&self, signal: Signal) -> Result<()> {
        self.step(signal).perform()
    }

    /// [`arm`](Self::arm) as a step of a child. The step refers to the pipe by number.
    pub(crate) fn step(&self, signal: Signal) -> Step {
        let call = Call::DieWithParent(self.0.as_raw_fd(), signal as i32);
        Step::new(call, "PR_SET_PDEATHSIG", "")
    }
}
