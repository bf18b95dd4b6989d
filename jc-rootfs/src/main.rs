//! jc-rootfs: assembles a root, makes it "/", and executes a program.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    jc_rootfs::init::started_as_init().unwrap_or_else(|| jc_rootfs::TOOL.main(jc_rootfs::run))
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    jc_rootfs::TOOL.main_with(jc_rootfs::command, jc_rootfs::run)
}
