//! `jc-net`: a network of its own, then exec.

use std::process::ExitCode;

fn main() -> ExitCode {
    jc_net::TOOL.main(jc_net::run)
}
