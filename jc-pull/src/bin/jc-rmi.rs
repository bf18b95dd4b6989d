//! `jc-rmi`: remove images from the store.

use std::process::ExitCode;

use jc_pull::manage;
use jc_unshare::Tool;

fn main() -> ExitCode {
    Tool::source("jc-rmi").main(manage::rmi)
}
