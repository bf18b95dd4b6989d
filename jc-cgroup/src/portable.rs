//! The program on a system without cgroups.

use std::process::ExitCode;

use jc_unshare::{AnyWords, Result};

use crate::TOOL;

/// Fails, since the system has no cgroups.
pub fn run(_: AnyWords) -> Result<ExitCode> {
    Ok(TOOL.unsupported("cgroups"))
}
