//! `jc-list`: list containers, and sweep what dead ones have left.

use std::process::ExitCode;

fn main() -> ExitCode {
    jc_run::list::TOOL.main_with(jc_run::list::command, jc_run::list::run)
}
