//! `jc-net`: a network of its own, then exec.
#![cfg_attr(all(target_os = "linux", not(test)), no_main)]

jc_unshare::main!(jc_net::TOOL.main(jc_net::run));
