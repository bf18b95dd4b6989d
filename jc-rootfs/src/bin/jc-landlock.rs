//! `jc-landlock`: restrictions of Landlock, then exec.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    jc_rootfs::landlock::TOOL.main(jc_rootfs::landlock::run)
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    jc_unshare::Tool::link("jc-landlock").unsupported("Landlock")
}
