//! `jc-oci`: the OCI runtime interface.

use std::process::ExitCode;

fn main() -> ExitCode {
    jc_run::oci::main()
}
