//! `jc-unshare`: enter new namespaces, then exec.
#![cfg_attr(all(target_os = "linux", not(test)), no_main)]

#[cfg(target_os = "linux")]
jc_unshare::main!(jc_unshare::unshare::TOOL.main(jc_unshare::unshare::run));
#[cfg(not(target_os = "linux"))]
jc_unshare::main!(jc_unshare::Tool::link("jc-unshare").unsupported("namespaces"));
