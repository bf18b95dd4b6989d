//! jc-net on another kernel, whose parts are modules, in a virtual machine.

#![cfg(target_os = "linux")]

use std::time::Duration;

use jc_tests::{run_in_vm, sandbox_for};

#[test]
fn networks_work_on_a_kernel_that_loads_modules() {
    let script = include_str!("../vm/net.sh");
    let checks = script.matches("\nis ").count() + script.matches("; is ").count();
    sandbox_for(Duration::from_secs(220), |s| run_in_vm(s, script, checks));
}
