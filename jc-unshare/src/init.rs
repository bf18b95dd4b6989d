//! A minimal PID 1: it forwards signals, reaps what is orphaned, and ends with the payload.

use std::ffi::OsString;

use nix::sys::prctl::set_dumpable;

use crate::error::{Context, Error, Result};
use crate::supervise::{reap_orphans, spawn};
use crate::{Tool, exec};

/// Runs the program as a child and exits with its code. Returns only an error.
pub fn run(tool: Tool, program: &[OsString]) -> Error {
    match supervise(tool, program) {
        Ok(code) => std::process::exit(code.into()),
        Err(error) => error,
    }
}

fn supervise(tool: Tool, program: &[OsString]) -> Result<u8> {
    let child = spawn(tool, 0, None, |_| exec::exec(program))?;
    // It keeps the root and the descriptors of the host: nobody in the namespace may look into it.
    set_dumpable(false).op("PR_SET_DUMPABLE")?;
    Ok(child.wait_with(|| reap_orphans(&child))?.code())
}
