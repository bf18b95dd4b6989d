//! `jc-rootfs`: make a root, pivot into it, and execute a program.

use std::process::ExitCode;

fn main() -> ExitCode {
    jc_rootfs::main()
}
