//! `jc-list`: list containers, and sweep what dead ones have left.
#![cfg_attr(all(target_os = "linux", not(test)), no_main)]

jc_unshare::main!(jc_run::list::TOOL.main_with(jc_run::list::command, jc_run::list::run));
