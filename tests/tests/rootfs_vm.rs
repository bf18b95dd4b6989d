//! jc-rootfs on Debian's kernel (6.1), in a virtual machine: overlays by mount(2), and cgroup v2, whose
//! options are for the whole machine.

#![cfg(target_os = "linux")]

use std::time::Duration;

use jc_tests::{run_in_vm, sandbox_for};

#[test]
fn roots_work_in_a_machine_with_an_older_kernel() {
    let script = include_str!("../vm/rootfs.sh");
    let checks = script.matches("\nis ").count();
    sandbox_for(Duration::from_secs(220), |s| run_in_vm(s, script, checks));
}
