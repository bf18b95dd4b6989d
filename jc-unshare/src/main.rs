//! `jc-unshare`: enter new namespaces, then exec.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    use jc_unshare::unshare::{TOOL, run};
    TOOL.main(run)
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    jc_unshare::Tool::link("jc-unshare").unsupported("namespaces")
}
