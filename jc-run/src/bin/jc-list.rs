//! `jc-list`: list containers, and remove the remains of dead containers.

use std::process::ExitCode;

fn main() -> ExitCode {
    jc_run::list::TOOL.main_with(jc_run::list::command, jc_run::list::run)
}
