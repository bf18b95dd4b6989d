//! `jc-rmi`: remove images from the store.

use std::process::ExitCode;

use jc_pull::manage;

fn main() -> ExitCode {
    manage::RMI.main(manage::rmi)
}
