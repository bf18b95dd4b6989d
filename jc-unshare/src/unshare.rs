//! The `jc-unshare` tool.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use crate::error::{Context, Error, Result};
use crate::namespaces::{New, advise, enter_time, set_hostname};
use crate::supervise::{reap_orphans, spawn};
use crate::{Tool, exec, require_program, sys};

/// The tool's name and contract.
pub const TOOL: Tool = Tool::link("jc-unshare");

/// Enter new namespaces, then run PROG there
#[derive(Debug, Parser)]
#[command(name = "jc-unshare", version, override_usage = "jc-unshare [options] [--] PROG [ARG...]")]
pub struct Args {
    #[command(flatten)]
    new: New,
    /// Set the host name (with -u)
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Make PID 1 a process that only reaps and forwards signals (with -p)
    #[arg(long)]
    init: bool,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, value_name = "PROG")]
    program: Vec<OsString>,
}

/// Does what the command line says. Returns the payload's exit code where there was a fork, which
/// is so with `-p`; else this process becomes the payload.
pub fn run(args: Args) -> Result<ExitCode> {
    require_program(&args.program)?;
    if args.hostname.is_some() && !args.new.uts {
        return Err(Error::usage("--hostname needs -u: it would rename the host"));
    }
    if args.init && !args.new.pid {
        return Err(Error::usage("--init needs -p"));
    }
    let flags = args.new.clone_flags();
    if !args.new.pid {
        if flags != 0 {
            sys::unshare(flags).op("unshare").map_err(advise)?;
        }
        return Err(enter(&args));
    }
    let child = spawn(TOOL, flags, None, || enter(&args)).map_err(advise)?;
    child.wait().map(Into::into)
}

/// What happens inside the new namespaces: returns only an error.
fn enter(args: &Args) -> Error {
    let prepared = prepare(args);
    match prepared {
        Err(error) => error,
        Ok(()) if args.init => init(&args.program),
        Ok(()) => exec::exec(&args.program),
    }
}

fn prepare(args: &Args) -> Result<()> {
    if args.new.time {
        enter_time()?;
    }
    args.hostname.as_deref().map_or(Ok(()), set_hostname)
}

/// A minimal PID 1: starts the payload, forwards signals, reaps what is orphaned, and ends with the
/// payload's code. It keeps the host's root, so nobody in the namespace may look into it.
fn init(program: &[OsString]) -> Error {
    let run = || -> Result<u8> {
        let child = spawn(TOOL, 0, None, || exec::exec(program))?;
        nix::sys::prctl::set_dumpable(false).op("PR_SET_DUMPABLE")?;
        Ok(child.wait_with(|| reap_orphans(&child))?.code())
    };
    match run() {
        Ok(code) => std::process::exit(code.into()),
        Err(error) => error,
    }
}
