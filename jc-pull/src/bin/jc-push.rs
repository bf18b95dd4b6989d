//! `jc-push`: send images to registries, layouts and archives.

use std::process::ExitCode;

use jc_pull::push_cli::{self, PushArgs};

fn main() -> ExitCode {
    push_cli::TOOL.main::<PushArgs>(push_cli::run)
}
