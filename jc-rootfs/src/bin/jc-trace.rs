//! `jc-trace`: a recorder of what a program does.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    jc_rootfs::trace::TOOL.main(jc_rootfs::trace::run)
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    jc_unshare::Tool::link("jc-trace").unsupported("seccomp")
}
