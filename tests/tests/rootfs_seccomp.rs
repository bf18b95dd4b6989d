//! jc-rootfs: the system calls that a payload may make.

#![cfg(target_os = "linux")]

use std::fs;

use jc_tests::{Sandbox, sandbox, skip, workspace_dir};
use serde_json::{Value, json};

mod rootfs_support;
use rootfs_support::{by_runtime, has, in_layer, root};

/// Puts the program that makes system calls into the root.
fn probe(s: &Sandbox) {
    let source = workspace_dir().join("tests/tests/rootfs_support/probe.c");
    s.cmd("cc").args(["-static", "-O1", "-o", "root/bin/probe"]).arg(source).run().code(0);
}

/// The default profile in OCI form, with the calls for the payload's capabilities.
fn profile(allowed: &[&str]) -> Value {
    let table = fs::read_to_string(workspace_dir().join("jc-rootfs/build/default.tbl")).unwrap();
    let names: Vec<&str> =
        table.lines().filter(|l| !l.starts_with('#')).flat_map(str::split_whitespace).collect();
    let allow = |names: &[&str], args: Value| json!({"names": names, "action": "SCMP_ACT_ALLOW", "args": args});
    let first =
        |op: &str, value: u64| json!([{"index": 0, "op": op, "value": value, "valueTwo": 0}]);
    let mut rules = vec![
        json!({"names": ["socketcall"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}),
        allow(&names, json!([])),
        // The default profile denies two requests, which the calls here do not have.
        allow(&["arch_prctl", "ioctl", "modify_ldt"], json!([])),
        allow(allowed, json!([])),
        allow(&["clone"], first("SCMP_CMP_MASKED_EQ", 0x7E02_0000)),
        json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}),
        allow(&["socket"], first("SCMP_CMP_LT", 12)),
    ];
    for family in (13..=45).filter(|f| ![19, 20, 23, 25, 34, 37, 38, 40].contains(f)) {
        rules.push(allow(&["socket"], first("SCMP_CMP_EQ", family)));
    }
    for personality in [0, 8, 0x2_0000, 0x2_0008, 0xFFFF_FFFF] {
        rules.push(allow(&["personality"], first("SCMP_CMP_EQ", personality)));
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "syscalls": rules,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
    })
}

/// Input for the program: every number that runc's library knows, and significant arguments. Calls that would stop or
/// confuse the program itself are left out, and sync(2), whose time depends on all disks of the host.
fn calls() -> String {
    let mut calls = String::new();
    for (abi, last, not) in [
        ("x86_64", 448, &[15, 58, 34, 162][..]), // rt_sigreturn, vfork, pause, sync
        ("x86", 448, &[119, 173, 190, 29, 0, 36]), // sigreturn, rt_sigreturn, vfork, pause, restart_syscall, sync
    ] {
        for number in (0..=last).filter(|n| !not.contains(n)) {
            calls += &format!("{abi} {number}\n");
        }
    }
    for family in 0..50 {
        calls += &format!("x86_64 41 {family} 99 0\nx86 359 {family} 99 0\n");
    }
    for bit in 8..33 {
        // A thread must share signal handlers and memory, or the kernel rejects the call.
        let flags = (1u64 << bit) | 0x1_0000;
        calls += &format!("x86_64 56 {flags} 0 0 0 0 0\nx86_64 435 {flags} 8\n");
        calls += &format!("x86_64 135 {}\n", 1u64 << bit);
    }
    for personality in [0u64, 8, 9, 0x2_0000, 0x2_0008, 0x2_0009, 0xFFFF_FFFF, u64::MAX, 1 << 32] {
        calls += &format!("x86_64 135 {personality}\nx86 136 {personality}\n");
    }
    calls
}

fn differences(ours: &str, theirs: &str) -> Vec<String> {
    let pairs = ours.lines().zip(theirs.lines()).filter(|(a, b)| a != b);
    pairs.map(|(a, b)| format!("{a} | {b}")).collect()
}

#[test]
fn the_default_profile_does_what_runc_does_with_it() {
    sandbox(|s| {
        if !cfg!(target_arch = "x86_64") {
            skip!("the numbers here are those of x86_64");
        }
        if !has(s, "runc") || !has(s, "cc") {
            skip!("needs runc, and a C compiler");
        }
        root(s, "root");
        probe(s);
        let calls = calls();
        fs::write(s.path("root/calls"), &calls).unwrap();
        // The filter for CAP_SYS_CHROOT, a default capability of jc-run, is compiled with the program.
        compare(s, &calls, &profile(&["read"]), &["--cap-drop", "ALL"]);
        let chroot = ["--cap-drop", "ALL", "--cap-add", "SYS_CHROOT"];
        compare(s, &calls, &profile(&["chroot"]), &chroot);
    });
}

/// Compares the results of the calls under runc with those under jc-rootfs and these capabilities.
fn compare(s: &Sandbox, calls: &str, profile: &Value, capabilities: &[&str]) {
    fs::write(s.path("profile"), profile.to_string()).unwrap();
    let script = "probe </calls";
    // The payload has no capabilities, since none of the calls must have an effect.
    let filter = format!(
        ".process.capabilities = {{}} | .process.noNewPrivileges = true | .process.rlimits = [] |
         .linux.seccomp = {profile} | .linux.namespaces += [{{type: \"cgroup\"}}]"
    );
    let theirs = by_runtime(s, "runc", &filter, script).run().code(0).out();
    assert_eq!(theirs.lines().count(), calls.lines().count());
    assert!(theirs.contains("x86_64 41 40 99 0: Operation not permitted"), "{theirs}");
    assert!(theirs.contains("x86_64 41 1 99 0: Invalid argument"), "{theirs}");
    for profile in ["default", "profile"] {
        let ours = s
            .jc("jc-unshare")
            .args(["-puiCn", "--", "jc-rootfs", "--seccomp", profile])
            .args(capabilities)
            .args(["--no-new-privs", "--mask", "default", "root", "--", "sh", "-c", script])
            .run()
            .code(0)
            .out();
        let differences = differences(&ours, &theirs);
        assert!(
            differences.is_empty(),
            "{profile}, {capabilities:?}, ours and theirs:\n{}",
            differences.join("\n")
        );
    }
}

/// The numbers of the x86 call socketcall(2), its operation SYS_SOCKET, and two address families.
#[test]
fn no_call_of_another_abi_opens_a_socket_that_the_default_profile_denies() {
    sandbox(|s| {
        if !cfg!(target_arch = "x86_64") {
            skip!("the numbers here are those of x86_64");
        }
        if !has(s, "cc") {
            skip!("needs a C compiler");
        }
        root(s, "root");
        probe(s);
        let mut calls = String::new();
        let mut expected = String::new();
        for (call, answer) in [
            ("x86_64 41 38 5 0", "Operation not permitted"),
            ("x86_64 41 40 1 0", "Operation not permitted"),
            ("x86 359 38 5 0", "Operation not permitted"),
            ("x86 359 40 1 0", "Operation not permitted"),
            ("x86 359 1 1 0", "fine"),
            // The filter ignores the address of the arguments, and address 0 has none.
            ("x86 102 1 0", "Function not implemented"),
            ("x86 102 2 0", "Function not implemented"),
            ("x32 41 40 1 0", "Function not implemented"),
            ("x32 39", "Function not implemented"),
        ] {
            calls += &format!("{call}\n");
            expected += &format!("{call}: {answer}\n");
        }
        fs::write(s.path("root/calls"), &calls).unwrap();
        in_layer(s, &["--seccomp", "default"], "probe </calls").run().code(0).stdout(&expected);
    });
}

#[test]
fn a_profile_is_used_or_an_error() {
    sandbox(|s| {
        root(s, "root");
        let filters = "grep ^Seccomp: /proc/self/status | cut -f2";
        let deny = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
            {"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":30}]}"#;
        fs::write(s.path("deny"), deny).unwrap();
        fs::write(s.path("bad"), r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#).unwrap();
        for (profile, output) in [("unconfined", "0\n"), ("default", "2\n"), ("deny", "2\n")] {
            in_layer(s, &["--seccomp", profile], filters).run().code(0).stdout(output);
        }
        in_layer(s, &["--seccomp", "deny"], "mkdir /x")
            .run()
            .code(1)
            .stderr("mkdir: can't create directory '/x': Read-only file system\n");
        in_layer(s, &["--seccomp", "bad"], ":")
            .run()
            .code(125)
            .stderr("jc-rootfs: seccomp bad: SCMP_ACT_NOTIFY: needs a listenerPath\n");
        in_layer(s, &["--seccomp", "none"], ":")
            .run()
            .code(125)
            .stderr("jc-rootfs: read none: No such file or directory\n");
        // A filter that denies execve(2) and exit_group(2) keeps no process.
        fs::write(s.path("all"), r#"{"defaultAction":"SCMP_ACT_ERRNO"}"#).unwrap();
        let ran = in_layer(s, &["--seccomp", "all"], ":").run();
        assert!(!ran.status().success(), "{ran}");
        // A capability of the payload allows its system calls.
        let mount = "mount -t tmpfs x /tmp 2>/dev/null && echo mounted";
        for (options, output) in [
            (&["--seccomp=default"][..], "mounted\n"),
            (&["--seccomp=default", "--cap-drop=SYS_ADMIN"], ""),
            (&["--seccomp=default", "--no-new-privs", "-u", "web"], ""),
        ] {
            in_layer(s, options, mount).run().stdout(output);
        }
    });
}

/// Profiles from before Linux 5.8 deny faccessat2(2), by which a program is looked up.
#[test]
fn a_filter_without_faccessat2_lets_a_program_be_found() {
    sandbox(|s| {
        root(s, "root");
        let rule = json!({"names": ["faccessat2"], "action": "SCMP_ACT_ERRNO"});
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
        fs::write(s.path("old"), profile.to_string()).unwrap();
        in_layer(s, &["--seccomp", "old"], "echo found").run().code(0).stdout("found\n");
    });
}
