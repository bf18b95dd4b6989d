//! `jc-landlock`: restrictions of Landlock, then exec.

use std::process::ExitCode;

fn main() -> ExitCode {
    jc_rootfs::landlock::TOOL.main(jc_rootfs::landlock::run)
}
