//! `jc-changes`: list, apply or drop the changes of a run.

use std::process::ExitCode;

use jc_pull::changes::cli::{self, ChangesArgs};

fn main() -> ExitCode {
    cli::TOOL.main::<ChangesArgs>(cli::run)
}
