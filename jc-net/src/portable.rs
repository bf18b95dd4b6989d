//! The programs on a system without network namespaces.

use std::process::ExitCode;

use jc_unshare::{AnyWords, Result};

use crate::{EGRESS, TOOL};

/// Fails, since the system has no network namespaces.
pub fn run(_: AnyWords) -> Result<ExitCode> {
    Ok(TOOL.unsupported("network namespaces"))
}

/// Fails, since the system has no network namespaces.
pub fn run_egress(_: AnyWords) -> Result<ExitCode> {
    Ok(EGRESS.unsupported("network namespaces"))
}

/// No targets: the parsers belong to Linux.
pub mod fuzz {}
