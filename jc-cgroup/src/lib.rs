//! The `jc-cgroup` tool: one cgroup, made, limited, joined and removed.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use jc_unshare::{Result, Tool, require_program};

#[cfg(target_os = "linux")]
mod cgroup;
#[cfg(target_os = "linux")]
mod group;
#[cfg(target_os = "linux")]
mod hierarchy;
#[cfg(target_os = "linux")]
mod limits;
mod size;

/// The tool's name and contract.
pub const TOOL: Tool = Tool::link("jc-cgroup");

/// Run PROG in a cgroup of its own, with limits
#[derive(Debug, Parser)]
#[command(name = "jc-cgroup", version, override_usage = "jc-cgroup [options] [--] PROG [ARG...]")]
pub struct Args {
    /// Limit memory and swap together: bytes, or with a suffix k, m, g, t
    #[arg(short = 'm', long, value_name = "SIZE", value_parser = size::parse)]
    memory: Option<u64>,
    /// Limit the number of processes and threads
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=4 << 20))]
    pids: Option<u64>,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, value_name = "PROG")]
    program: Vec<OsString>,
}

/// Does what the command line says and returns the payload's exit code.
#[cfg(target_os = "linux")]
pub fn run(args: Args) -> Result<ExitCode> {
    require_program(&args.program)?;
    cgroup::supervise(&args)
}

/// Says that the platform has no cgroups.
#[cfg(not(target_os = "linux"))]
pub fn run(args: Args) -> Result<ExitCode> {
    require_program(&args.program)?;
    Ok(TOOL.unsupported("cgroups"))
}
