//! `jc-trace`: a recorder of what a program does.

use std::process::ExitCode;

fn main() -> ExitCode {
    jc_rootfs::trace::TOOL.main(jc_rootfs::trace::run)
}
