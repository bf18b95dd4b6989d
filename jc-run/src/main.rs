//! `jc-run`: run a record as a container.
#![cfg_attr(all(target_os = "linux", not(test)), no_main)]

jc_unshare::main!(jc_run::TOOL.main_with(jc_run::command, jc_run::run));
