//! `jc-exec`: execute a program in a running container.

use std::process::ExitCode;

fn main() -> ExitCode {
    jc_run::execute::TOOL.main_with(jc_run::execute::command, jc_run::execute::run)
}
