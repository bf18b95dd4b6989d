//! `jc-pull`: fetch container images into a verified store and print what to run.
#![cfg_attr(all(target_os = "linux", not(test)), no_main)]

jc_unshare::main!(jc_unshare::Tool::source("jc-pull").main(jc_pull::cli::run));
