//! `jc-logs`: print the output of detached containers.

use std::process::ExitCode;

fn main() -> ExitCode {
    jc_run::logs::TOOL.main_with(jc_run::logs::command, jc_run::logs::run)
}
