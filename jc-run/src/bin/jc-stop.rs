//! `jc-stop`: stop containers.

use std::process::ExitCode;

fn main() -> ExitCode {
    jc_run::stop::TOOL.main_with(jc_run::stop::command, jc_run::stop::run)
}
