//! `jc-net`: execute a program in a network of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    jc_net::TOOL.main(jc_net::run)
}
