//! `jc-logs`: print what detached containers have written.
#![cfg_attr(all(target_os = "linux", not(test)), no_main)]

jc_unshare::main!(jc_run::logs::TOOL.main_with(jc_run::logs::command, jc_run::logs::run));
