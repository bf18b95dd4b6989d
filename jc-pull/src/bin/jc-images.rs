//! `jc-images`: list the images in the store.
#![cfg_attr(all(target_os = "linux", not(test)), no_main)]

jc_unshare::main!(jc_unshare::Tool::source("jc-images").main(jc_pull::manage::images));
