//! `jc-cgroup --resources`: the limits of an object of the OCI, as the kernel holds them.

#![cfg(target_os = "linux")]

use jc_tests::cgroups::{Controller, can_limit};
use jc_tests::{Sandbox, sandbox, skip};
use rustix::process::Signal;

const TOOL: &str = "jc-cgroup";

/// Runs a line of shell in the group of a path with these resources.
fn sh(s: &Sandbox, path: &str, resources: &str, script: &str) -> jc_tests::Ran {
    let words = ["--path", path, "--resources", resources, "--", "sh", "-c", script];
    s.jc(TOOL).args(words).run()
}

/// A v2 group that holds processes enables no controllers for groups below it, and those need none without limits.
#[test]
fn a_group_without_limits_is_made_below_one_that_holds_processes() {
    sandbox(|s| {
        let below = "/jc-tests-above/below";
        let inner = format!("jc-cgroup --path {below} -- cat /proc/self/cgroup");
        let words = ["--path", "/jc-tests-above", "--", "sh", "-c", &inner];
        let groups = s.jc(TOOL).args(words).run().code(0).out();
        assert!(groups.lines().any(|line| line.ends_with(below)), "{groups}");
        s.jc(TOOL).args(["--remove", "/jc-tests-above"]).run().code(0);
    });
}

#[test]
fn an_object_of_the_oci_sets_what_it_names() {
    sandbox(|s| {
        if ["memory", "cpu", "pids", "cpuset"].iter().any(|name| !can_limit(name)) {
            skip!("this host lacks a controller");
        }
        let path = "/jc-tests-resources";
        let first = r#"{"memory":{"limit":67108864,"reservation":33554432},"pids":{"limit":100},
            "cpu":{"shares":512,"quota":50000,"period":100000,"cpus":"0","mems":"0"},"unknown":1}"#;
        let wait =
            ["--path", path, "--resources", first, "--", "sh", "-c", "echo ready; exec sleep 1000"];
        let mut running = s.jc(TOOL).args(wait).spawn();
        running.wait_for("ready");
        let pid = s.cmd("pidof").arg("sleep").run().code(0).out();
        let pid = pid.split_whitespace().next().unwrap().parse().unwrap();
        let read = |controller: &str, v1: &str, v2: &str| {
            Controller::of(pid, controller).unwrap().read(v1, v2)
        };
        assert_eq!(read("memory", "memory.limit_in_bytes", "memory.max"), "67108864");
        assert_eq!(read("memory", "memory.soft_limit_in_bytes", "memory.low"), "33554432");
        assert_eq!(read("pids", "pids.max", "pids.max"), "100");
        assert_eq!(read("cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
        let shares = read("cpu", "cpu.shares", "cpu.weight");
        assert!(["512", "59"].contains(&shares.as_str()), "{shares}");
        let quota = read("cpu", "cpu.cfs_quota_us", "cpu.max");
        assert!(quota.starts_with("50000"), "{quota}");
        // Memory and swap grow together, in any order that the kernel takes.
        let grown = r#"{"memory":{"limit":134217728,"swap":268435456},"pids":{"limit":-1},"cpu":{"period":50000}}"#;
        s.jc(TOOL).args(["--update", path, "--resources", grown]).run().code(0);
        assert_eq!(read("memory", "memory.limit_in_bytes", "memory.max"), "134217728");
        assert_eq!(read("pids", "pids.max", "pids.max"), "max");
        let quota = read("cpu", "cpu.cfs_quota_us", "cpu.max");
        assert!(["50000", "50000 50000"].contains(&quota.as_str()), "{quota}");
        let least = r#"{"memory":{"limit":4096,"checkBeforeUpdate":true}}"#;
        let refused = s.jc(TOOL).args(["--update", path, "--resources", least]).run();
        refused.code(125).fails_as(TOOL, "4096 is below the usage");
        assert_eq!(read("memory", "memory.limit_in_bytes", "memory.max"), "134217728");
        running.signal(Signal::TERM);
        running.wait();
        s.jc(TOOL).args(["--remove", path]).run().code(0);
    });
}

#[test]
fn a_resource_that_cannot_be_limited_is_an_error() {
    sandbox(|s| {
        for (resources, error) in [
            (r#"{"memory":{"limit":"1"}}"#, "/memory/limit"),
            (r#"{"unified":{"../x":"1"}}"#, "no file of cgroup v2"),
            (r#"{"unified":{"none.max":"1"}}"#, "none"),
            (r#"{"rdma":{"x":{"hcaHandles":1}}}"#, "rdma"),
            (r#"{"devices":[{"allow":true}]}"#, "/devices"),
            ("[]", "--resources"),
            ("/none", "/none"),
        ] {
            let path = "/jc-tests-no-resources";
            sh(s, path, resources, "echo run").code(125).stdout("").fails_as(TOOL, error);
            s.sh(&format!(
                "find /sys/fs/cgroup -depth -type d -path '*{path}*' -exec rmdir {{}} +"
            ))
            .run();
        }
    });
}

/// The rules deny the second device, and allow only to make nodes of the third.
const RULES: &str = r#"{"devices":[{"allow":false,"access":"rwm"},
    {"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"},
    {"allow":true,"type":"c","major":1,"minor":7,"access":"m"}]}"#;

fn check_devices(s: &Sandbox, path: &str) {
    let script = "cat </dev/null && echo null; cat </dev/zero 2>/dev/null | head -c1; \
        mknod full c 1 7 && echo made; cat full 2>/dev/null || echo denied; mknod zero c 1 5 2>/dev/null || echo no";
    sh(s, path, RULES, script).stdout("null\nmade\ndenied\nno\n");
    let later = r#"{"devices":[{"allow":true,"type":"c","major":1,"minor":5,"access":"r"}]}"#;
    let has_version_1 = "grep -q ' /sys/fs/cgroup/devices cgroup ' /proc/self/mounts";
    let later = if s.sh(has_version_1).run().status().success() {
        later.to_owned()
    } else {
        // A program replaces the one before.
        RULES.replace("}]}", r#"},{"allow":true,"type":"c","major":1,"minor":5,"access":"r"}]}"#)
    };
    s.jc(TOOL).args(["--update", path, "--resources", &later]).run().code(0);
    let script = "head -c1 /dev/zero | od -An -tx1; cat </dev/null && echo null; echo x 2>/dev/null >/dev/zero || echo no";
    s.jc(TOOL).args(["--join", path, "--", "sh", "-c", script]).run().stdout(" 00\nnull\nno\n");
    s.sh("rm full").run();
    s.jc(TOOL).args(["--remove", path]).run().code(0);
}

#[test]
fn rules_for_devices_hold_in_either_version() {
    sandbox(|s| {
        check_devices(s, "/jc-tests-devices-1");
        // Without the hierarchy of version 1, a program of the unified one decides.
        if s.sh("umount /sys/fs/cgroup/devices").run().status().success() {
            check_devices(s, "/jc-tests-devices-2");
        }
    });
}
