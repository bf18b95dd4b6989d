//! The program on a system without cgroups.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use jc_unshare::Result;

use crate::TOOL;

/// A command line of any words.
#[derive(Debug, Parser)]
#[command(name = "jc-cgroup", version)]
pub struct Args {
    /// The options and the program
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// Fails, since the system has no cgroups.
pub fn run(_: Args) -> Result<ExitCode> {
    Ok(TOOL.unsupported("cgroups"))
}
