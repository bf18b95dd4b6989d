//! jc-cgroup on cgroup v2 with all controllers, in a virtual machine: many machines have version 1 or
//! both.

#![cfg(target_os = "linux")]

use std::time::Duration;

use jc_tests::{run_in_vm, sandbox_for};

#[test]
fn limits_hold_in_a_machine_with_cgroup_version_2() {
    let script = include_str!("../vm/cgroup.sh");
    let checks = script.matches("\nis ").count() + script.matches("; is ").count();
    sandbox_for(Duration::from_secs(220), |s| run_in_vm(s, script, checks));
}
