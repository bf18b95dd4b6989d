//! `jc-egress`: a network that leads to the hosts of a list only, then exec.

use std::process::ExitCode;

fn main() -> ExitCode {
    jc_net::EGRESS.main(jc_net::run_egress)
}
