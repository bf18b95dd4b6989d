//! `jc-rootfs`: attributes of the payload that container engines ask for, seen from inside.

#![cfg(target_os = "linux")]

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixListener;

use jc_tests::descriptors::receive;
use jc_tests::{Ran, Sandbox, sandbox, wait_for_line};
use rustix::process::{Pid, WaitOptions, waitpid};
use serde_json::Value;

mod rootfs_support;
use rootfs_support::{in_layer, root};

const TOOL: &str = "jc-rootfs";

fn run(s: &Sandbox, options: &[&str], script: &str) -> Ran {
    in_layer(s, options, script).run()
}

/// The five sets of a payload: inheritable, permitted, effective, bounding, ambient.
const SETS: &str = "grep -E '^Cap' /proc/self/status | cut -f2 | sed s/^0*// | tr '\\n' ,";

#[test]
fn each_capability_set_is_exactly_as_asked_for() {
    sandbox(|s| {
        root(s, "root");
        // CHOWN is bit 0, KILL bit 5, NET_RAW bit 13.
        let all = [
            "--cap-set",
            "bounding=CAP_CHOWN,CAP_KILL,NET_RAW",
            "--cap-set",
            "effective=KILL",
            "--cap-set",
            "permitted=KILL,CHOWN",
            "--cap-set",
            "inheritable=KILL",
            "--cap-set",
            "ambient=KILL",
        ];
        run(s, &[&all[..], &["--user", "33:33"]].concat(), SETS)
            .code(0)
            .stdout("20,20,20,2021,20,");
        // The kernel gives root the bounding and the inheritable set at execve(2).
        run(s, &["--cap-set", "bounding=KILL,CHOWN", "--cap-set", "inheritable=CHOWN"], SETS)
            .code(0)
            .stdout("1,21,21,21,,");
        run(s, &["--cap-set", "bounding="], SETS).code(0).stdout(",,,,,");
        for (word, error) in [
            ("effective=KILL", "not permitted"),
            ("ambient=KILL", "not permitted"),
            ("bounding=X", "no such capability"),
            ("all=KILL", "no capability set"),
            ("bounding=ALL", "ALL"),
        ] {
            run(s, &["--cap-set", word], "true").code(125).fails_as(TOOL, error);
        }
        run(s, &["--cap-set", "bounding=", "--cap-drop", "ALL"], "true").code(125);
        let without = ["setpriv", "--bounding-set=-net_raw", "jc-rootfs", "--layer", "root"];
        let ran =
            s.cmd(without[0]).args(&without[1..]).args(["--cap-set", "bounding=NET_RAW", "true"]);
        ran.run().code(125).fails_as(TOOL, "capability NET_RAW: not held");
    });
}

#[test]
fn attributes_of_the_process_survive_the_execution() {
    sandbox(|s| {
        root(s, "root");
        for (options, script, found) in [
            (&["--umask", "0027"][..], "umask", "0027\n"),
            (&["--umask", "0"], "umask", "0000\n"),
            (&["--oom-score-adj", "321"], "cat /proc/self/oom_score_adj", "321\n"),
            (&["--personality", "linux32"], "cat /proc/self/personality", "00000008\n"),
            (&["--personality", "linux"], "cat /proc/self/personality", "00000000\n"),
            (&["--cpu-affinity", "0"], "grep Cpus_allowed_list /proc/self/status | cut -f2", "0\n"),
            (
                &["--scheduler", r#"{"policy":"SCHED_BATCH","nice":7}"#],
                "cut -d' ' -f19,41 /proc/self/stat",
                "7 3\n",
            ),
            (
                &["--scheduler", r#"{"policy":"SCHED_FIFO","priority":9}"#],
                "cut -d' ' -f40,41 /proc/self/stat",
                "9 1\n",
            ),
        ] {
            run(s, options, script).code(0).stdout(found);
        }
        let ran = run(
            s,
            &["--io-priority", "be:6"],
            "ionice -p $$ 2>/dev/null || echo best-effort: prio 6",
        );
        assert!(ran.out().contains("prio 6"), "{ran}");
        for (options, error) in [
            (["--umask", "9"], "--umask"),
            (["--oom-score-adj", "1001"], "--oom-score-adj"),
            (["--personality", "bsd"], "--personality"),
            (["--cpu-affinity", "x"], "--cpu-affinity"),
            (["--cpu-affinity", "1023"], "sched_setaffinity"),
            (["--scheduler", r#"{"policy":"SCHED_X"}"#], "SCHED_X"),
            (["--scheduler", r#"{"policy":"SCHED_FIFO","priority":100}"#], "sched_setattr"),
            (["--io-priority", "be:9"], "--io-priority"),
            (["--memory-policy", r#"{"mode":"MPOL_BIND"}"#], "set_mempolicy"),
            (["--memory-policy", r#"{"mode":"MPOL_X"}"#], "MPOL_X"),
            (["--console-size", "9"], "--console-size"),
        ] {
            run(s, &options, "true").code(125).stdout("").fails_as(TOOL, error);
        }
    });
}

#[test]
fn a_label_of_a_module_that_the_kernel_lacks_is_an_error() {
    sandbox(|s| {
        root(s, "root");
        let modules =
            fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
        if !modules.starts_with('Y') {
            run(s, &["--apparmor", "p"], "true").code(125).fails_as(TOOL, "AppArmor");
        }
        if !fs::read_to_string("/proc/filesystems").unwrap().contains("selinuxfs") {
            run(s, &["--selinux", "u:r:t:s0"], "true").code(125).fails_as(TOOL, "SELinux");
        }
    });
}

#[test]
fn a_console_has_the_size_that_is_asked_for() {
    sandbox(|s| {
        root(s, "root");
        let listener = UnixListener::bind(s.path("socket")).unwrap();
        let options = ["--console-socket", "socket", "--console-size", "33x77"];
        let running = in_layer(s, &options, "stty size").spawn();
        let (stream, _) = listener.accept().unwrap();
        let (_, master) = receive(&stream);
        let mut shown = Vec::new();
        // The read ends with EIO when the terminal is closed.
        let _: std::io::Result<usize> = fs::File::from(master).read_to_end(&mut shown);
        running.wait().code(0);
        assert_eq!(String::from_utf8(shown).unwrap(), "33 77\r\n");
    });
}

#[test]
fn an_agent_gets_the_listener_of_the_filter_and_the_state() {
    sandbox(|s| {
        root(s, "root");
        let listener = UnixListener::bind(s.path("agent")).unwrap();
        let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/srv/agent",
            "listenerMetadata":"m","flags":["SECCOMP_FILTER_FLAG_LOG"],
            "syscalls":[{"names":["swapoff"],"action":"SCMP_ACT_NOTIFY"}]}"#;
        let state = r#"{"ociVersion":"1.2.0","id":"c","bundle":"/b"}"#;
        for more in [&[][..], &["--no-new-privs"]] {
            let options = [&["--seccomp", profile, "--state", state], more].concat();
            let running =
                in_layer(s, &options, "grep Seccomp: /proc/self/status | cut -f2").spawn();
            let (stream, _) = listener.accept().unwrap();
            let (text, fd) = receive(&stream);
            let message: Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(message["fds"], serde_json::json!(["seccompFd"]));
            assert_eq!(
                (&message["metadata"], &message["ociVersion"]),
                (&"m".into(), &"1.2.0".into())
            );
            assert_eq!(
                (&message["state"]["id"], &message["state"]["status"]),
                (&"c".into(), &"creating".into())
            );
            assert!(
                message["pid"].as_u64().unwrap() > 1 && message["pid"] == message["state"]["pid"]
            );
            let link =
                fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd)));
            assert!(link.unwrap().display().to_string().contains("seccomp"));
            running.wait().code(0).stdout("2\n");
        }
        for (profile, error) in [
            (r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#, "listenerPath"),
            (r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerMetadata":"m"}"#, "listenerPath"),
            (r#"{"defaultAction":"#, "profile"),
        ] {
            run(s, &["--seccomp", profile], "true").code(125).fails_as(TOOL, error);
        }
        let needs = [&["--seccomp", profile][..]].concat();
        run(s, &needs, "true").code(125).fails_as(TOOL, "--state");
    });
}

#[test]
fn a_joined_program_outlives_the_link_that_does_not_wait() {
    sandbox(|s| {
        root(s, "root");
        fs::create_dir(s.path("go")).unwrap();
        for unshare in [&["-pui"][..], &["-ui"]] {
            let script = "echo ready; until [ -e /go/end ]; do sleep 0.01; done";
            let line = s.jc("jc-unshare").args(unshare).args([
                "--",
                "jc-rootfs",
                "-v",
                "go:/go",
                "--layer",
                "root",
            ]);
            let mut waits = line.args(["--", "sh", "-c", script]).spawn();
            waits.wait_for("ready");
            let pid = s.sh("pgrep -f '^sh -c echo ready' | head -n 1").run().code(0).out();
            let join = format!(
                "jc-unshare --join {}:uts,ipc -- jc-rootfs --join {}",
                pid.trim(),
                pid.trim()
            );
            let script = "until [ -e /go/on ]; do sleep 0.01; done; echo done >/go/out";
            let line = format!(
                "{join} --no-wait --status-fd 3 --umask 077 --new-session -- sh -c '{script}' 3>events >/dev/null 2>&1"
            );
            s.sh(&line).run().code(0);
            let events = fs::read_to_string(s.path("events")).unwrap();
            let event: Value = serde_json::from_str(events.lines().next().unwrap()).unwrap();
            assert_eq!(
                (events.lines().count(), &event["event"]),
                (1, &"started".into()),
                "{events}"
            );
            let status = fs::read_to_string(format!("/proc/{}/status", event["pid"])).unwrap();
            assert!(
                status.contains("\nPPid:\t1\n") && status.starts_with("Name:\tsh\n"),
                "{status}"
            );
            fs::write(s.path("go/on"), "").unwrap();
            assert_eq!(wait_for_line(&s.path("go/out"), "done"), "done\n");
            for name in ["/none", "none"] {
                let line = format!("{join} --no-wait --status-fd 3 -- {name} 3>events");
                s.sh(&line).run().code(127).fails_as(TOOL, name);
                let events = fs::read_to_string(s.path("events")).unwrap();
                assert!(
                    events.contains(r#""exec-failed","link":"jc-rootfs","code":127"#),
                    "{events}"
                );
            }
            // This process is the nearest subreaper.
            let pid = Pid::from_raw(event["pid"].as_u64().unwrap() as i32);
            waitpid(pid, WaitOptions::empty()).unwrap().unwrap();
            fs::write(s.path("go/end"), "").unwrap();
            waits.wait().code(0);
            s.sh("rm go/*").run().code(0);
            s.wait_for_no_process();
        }
        let ran = s.jc(TOOL).args(["--no-wait", "--layer", "root", "true"]).run();
        ran.code(125).fails_as(TOOL, "--join");
    });
}
