//! Dying with one's parent, however early it dies.

use std::os::fd::{AsFd, OwnedFd};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::error::{Context, Error, Result};
use crate::next::can_be_read;

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
    /// already hung up the pipe. To be called again after a change of credentials, which disarms it.
    pub fn hold(&self, signal: Signal) -> Result<()> {
        set_pdeathsig(signal).op("PR_SET_PDEATHSIG")?;
        match can_be_read(self.0.as_fd())? {
            false => Ok(()),
            // Of what it failed it has told, and who killed it knows.
            true => Err(Error::quiet()),
        }
    }
}
