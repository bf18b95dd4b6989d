//! The programs on a system without network namespaces.

use std::ffi::OsString;
use std::process::ExitCode;

use jc_unshare::Result;

use crate::{EGRESS, TOOL};

/// A command line of any words.
#[derive(Debug, clap::Parser)]
#[command(name = "jc-net", version)]
pub struct Args {
    /// The options and the program
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// Fails, since the system has no network namespaces.
pub fn run(_: Args) -> Result<ExitCode> {
    Ok(TOOL.unsupported("network namespaces"))
}

/// Fails, since the system has no network namespaces.
pub fn run_egress(_: Args) -> Result<ExitCode> {
    Ok(EGRESS.unsupported("network namespaces"))
}

/// No targets: the parsers belong to Linux.
pub mod fuzz {}
