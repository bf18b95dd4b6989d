//! `jc-cgroup`: run a program in a cgroup of its own, with limits.

use std::process::ExitCode;

fn main() -> ExitCode {
    jc_cgroup::TOOL.main(jc_cgroup::run)
}
