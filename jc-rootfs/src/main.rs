//! `jc-rootfs`: assemble a root, pivot into it, then exec.

use std::process::ExitCode;

fn main() -> ExitCode {
    jc_rootfs::TOOL.main(jc_rootfs::run)
}
