//! A minimal PID 1: it forwards signals, reaps what is orphaned, and ends with the payload.

use std::ffi::OsString;
use std::os::fd::OwnedFd;

use crate::error::{Error, Result};
use crate::process::deny_tracing;
use crate::supervise::{Waiter, spawn};
use crate::{Tool, exec};

/// Runs the program as a child and exits with its code; `tell` is where a stop of it is told to the
/// waiting link outside. Returns only an error.
pub fn run(tool: Tool, program: &[OsString], tell: OwnedFd) -> Error {
    match supervise(tool, program, tell) {
        Ok(code) => std::process::exit(code.into()),
        Err(error) => error,
    }
}

fn supervise(tool: Tool, program: &[OsString], tell: OwnedFd) -> Result<u8> {
    deny_tracing()?;
    let child = spawn(tool, 0, None, |_| exec::exec(program))?;
    Ok(child.wait_as(Waiter::Init(tell), &[])?.code())
}
