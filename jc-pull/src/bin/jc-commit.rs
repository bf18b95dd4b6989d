//! `jc-commit`: make an image of a record and one more layer.

use std::process::ExitCode;

use jc_pull::commit_cli::{self, CommitArgs};

fn main() -> ExitCode {
    commit_cli::TOOL.main::<CommitArgs>(commit_cli::run)
}
