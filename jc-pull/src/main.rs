//! `jc-pull`: fetch container images into a verified store and print their records.

use std::process::ExitCode;

use jc_pull::cli::{self, PullArgs};

fn main() -> ExitCode {
    cli::TOOL.main::<PullArgs>(cli::run)
}
