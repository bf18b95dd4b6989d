//! `jc-unshare`: enter new namespaces, then exec.

use std::process::ExitCode;

use jc_unshare::unshare::{TOOL, run};

fn main() -> ExitCode {
    TOOL.main(run)
}
