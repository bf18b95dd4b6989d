//! `jc-pull`: fetch container images into a verified store and print what to run.

use std::process::ExitCode;

use jc_pull::cli::{self, PullArgs};
use jc_unshare::Tool;

fn main() -> ExitCode {
    Tool::source("jc-pull").main::<PullArgs>(cli::run)
}
