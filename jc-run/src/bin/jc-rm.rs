//! `jc-rm`: remove containers that have ended.

use std::process::ExitCode;

fn main() -> ExitCode {
    jc_run::remove::TOOL.main_with(jc_run::remove::command, jc_run::remove::run)
}
