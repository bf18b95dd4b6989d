//! `jc-rm`: remove containers that have ended.
#![cfg_attr(all(target_os = "linux", not(test)), no_main)]

jc_unshare::main!(jc_run::remove::TOOL.main_with(jc_run::remove::command, jc_run::remove::run));
