//! `jc-run`: run a record as a container.

use std::process::ExitCode;

fn main() -> ExitCode {
    jc_run::TOOL.main_with(jc_run::command, jc_run::run)
}
