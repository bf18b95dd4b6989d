//! `jc-cgroup`: a cgroup of its own, with limits, then the program.
#![cfg_attr(all(target_os = "linux", not(test)), no_main)]

jc_unshare::main!(jc_cgroup::TOOL.main(jc_cgroup::run));
