//! `--network pasta`
use std::process::ExitCode;

use jc_unshare::{Error, Result};

use crate::Args;
use crate::status::StatusFd;

/// Not there yet.
pub fn run(_: &Args, _: Option<StatusFd>) -> Result<ExitCode> {
    Err(Error::new("--network pasta: not there yet"))
}
