//! `jc-logs`: print what detached containers have written.

use std::process::ExitCode;

fn main() -> ExitCode {
    jc_run::logs::TOOL.main_with(jc_run::logs::command, jc_run::logs::run)
}
