//! `jc-exec`: execute a program in a running container.
#![cfg_attr(all(target_os = "linux", not(test)), no_main)]

jc_unshare::main!(jc_run::execute::TOOL.main_with(jc_run::execute::command, jc_run::execute::run));
