//! A minimal PID 1, which forwards signals, reaps orphans and ends with the payload.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};

use super::child::Waiter;
use super::process::deny_tracing;
use super::spawn::NewChild;
use super::sys;
use crate::Tool;
use crate::error::{Context, Error, Result};

/// Makes the pipe between a PID 1 and the link that waits for it. The write end has this number, and programs
/// that children of this process execute inherit it. A descriptor with the same number is closed. Usage error:
/// the number is that of a standard stream.
pub fn pipe_as(number: u32) -> Result<(OwnedFd, OwnedFd)> {
    if number <= 2 {
        return Err(Error::usage(format_args!(
            "--init-fd {number}: descriptors up to 2 belong to the program"
        )));
    }
    drop(sys::take_fd(number).ok());
    let (mut reader, mut writer) = pipe_with(PipeFlags::CLOEXEC).op("pipe2")?;
    let number = number as RawFd;
    if reader.as_raw_fd() == number {
        reader = fcntl_dupfd_cloexec(&reader, number).op("F_DUPFD")?;
    }
    if writer.as_raw_fd() != number {
        writer = fcntl_dupfd_cloexec(&writer, number).op("F_DUPFD")?;
    }
    fcntl_setfd(&writer, FdFlags::empty()).op("F_SETFD")?;
    Ok((reader, writer))
}

/// Runs `body` in a child, which executes a program at its end, and exits with the child's code. `writer` is the
/// pipe to the waiting link outside. Returns only an error.
pub fn run(tool: Tool, writer: OwnedFd, body: impl FnOnce() -> Error) -> Error {
    match supervise(tool, writer, body) {
        Ok(code) => std::process::exit(code.into()),
        Err(error) => error,
    }
}

fn supervise(tool: Tool, writer: OwnedFd, body: impl FnOnce() -> Error) -> Result<u8> {
    deny_tracing()?;
    let child = NewChild::of(tool).spawn(|_| body())?;
    Ok(child.wait_as(Waiter::Init(writer), &[])?.code())
}
