//! `jc-images`: list the images in the store.

use std::process::ExitCode;

use jc_pull::manage;

fn main() -> ExitCode {
    manage::IMAGES.main(manage::images)
}
