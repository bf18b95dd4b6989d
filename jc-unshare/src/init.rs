//! A minimal PID 1: it forwards signals, reaps what is orphaned, and ends with the payload.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::error::{Context, Error, Result};
use crate::process::deny_tracing;
use crate::supervise::{Waiter, spawn};
use crate::{Tool, sys};

/// A pipe between a PID 1 and the link that waits for it: the read end, and the write end with this number,
/// which stays open in the programs that children of this process execute. A descriptor of the caller's that
/// has the number is closed. Usage error: the number is that of a standard stream.
pub fn pipe_as(number: u32) -> Result<(OwnedFd, OwnedFd)> {
    if number <= 2 {
        return Err(Error::usage(format_args!(
            "--init-fd {number}: descriptors up to 2 belong to the program"
        )));
    }
    drop(sys::take_fd(number).ok());
    let (mut told, mut tell) = pipe_with(PipeFlags::CLOEXEC).op("pipe2")?;
    let number = number as RawFd;
    if told.as_raw_fd() == number {
        told = fcntl_dupfd_cloexec(&told, number).op("F_DUPFD")?;
    }
    if tell.as_raw_fd() != number {
        tell = fcntl_dupfd_cloexec(&tell, number).op("F_DUPFD")?;
    }
    fcntl_setfd(&tell, FdFlags::empty()).op("F_SETFD")?;
    Ok((told, tell))
}

/// Runs `body`, which ends in an exec, as a child, and exits with its code; `tell` is the pipe to the waiting
/// link outside. Returns only an error.
pub fn run(tool: Tool, tell: OwnedFd, body: impl FnOnce() -> Error) -> Error {
    match supervise(tool, tell, body) {
        Ok(code) => std::process::exit(code.into()),
        Err(error) => error,
    }
}

fn supervise(tool: Tool, tell: OwnedFd, body: impl FnOnce() -> Error) -> Result<u8> {
    deny_tracing()?;
    let child = spawn(tool, 0, None, |_| body())?;
    Ok(child.wait_as(Waiter::Init(tell), &[])?.code())
}
