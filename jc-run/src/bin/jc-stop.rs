//! `jc-stop`: stop containers.
#![cfg_attr(all(target_os = "linux", not(test)), no_main)]

jc_unshare::main!(jc_run::stop::TOOL.main_with(jc_run::stop::command, jc_run::stop::run));
