//! `jc-rmi`: remove images from the store.
#![cfg_attr(all(target_os = "linux", not(test)), no_main)]

jc_unshare::main!(jc_unshare::Tool::source("jc-rmi").main(jc_pull::manage::rmi));
