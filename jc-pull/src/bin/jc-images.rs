//! `jc-images`: list the images in the store.

use std::process::ExitCode;

use jc_pull::manage;
use jc_unshare::Tool;

fn main() -> ExitCode {
    Tool::source("jc-images").main(manage::images)
}
