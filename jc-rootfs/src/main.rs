//! `jc-rootfs`: assemble a root, pivot into it, then exec.
#![cfg_attr(all(target_os = "linux", not(test)), no_main)]

#[cfg(target_os = "linux")]
jc_unshare::main!(jc_rootfs::TOOL.main(jc_rootfs::run));
#[cfg(not(target_os = "linux"))]
jc_unshare::main!(
    jc_rootfs::TOOL.main_with(jc_rootfs::command, |matches| jc_rootfs::run(&matches))
);
