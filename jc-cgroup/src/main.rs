//! `jc-cgroup`: a cgroup of its own, with limits, then the program.

use std::process::ExitCode;

fn main() -> ExitCode {
    jc_cgroup::TOOL.main(jc_cgroup::run)
}
