//! `--no-wait`: a program that outlives the link which starts it, and groups that have a path and stay.

#![cfg(target_os = "linux")]

use std::fs;

use jc_tests::{Sandbox, sandbox, wait_for_line};
use serde_json::Value;

/// Runs a line, whose program waits for a line of the FIFO `go` and then ends. Returns the PID of the event.
fn start(s: &Sandbox, line: &str, script: &str) -> u32 {
    s.sh("mkfifo -m 666 go; : >events; chmod 666 events").run().code(0);
    let line = format!("{line} --status-fd 3 -- sh -c '{script}' <go >out 2>&1 3>events");
    // A process opens the FIFO for writing before the program opens it for reading.
    s.sh(&format!("exec 4<>go; {line}; echo $? >code")).run().code(0);
    assert_eq!(
        wait_for_line(&s.path("code"), ""),
        "0\n",
        "{line}: {:?}",
        fs::read_to_string(s.path("out"))
    );
    let events = fs::read_to_string(s.path("events")).unwrap();
    let event: Value = serde_json::from_str(events.lines().next().unwrap()).unwrap();
    assert_eq!(event["event"], "started", "{events}");
    assert!(!events.contains("exited"), "{events}");
    event["pid"].as_u64().unwrap() as u32
}

fn end(s: &Sandbox) {
    s.sh("echo go >go; rm go").run().code(0);
}

fn status(pid: u32, key: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().to_owned()
}

#[test]
fn a_program_outlives_the_link_that_does_not_wait() {
    sandbox(|s| {
        for line in [
            "jc-unshare --no-wait",
            "jc-unshare -p --no-wait",
            "jc-unshare -Urp --no-wait",
            "jc-unshare -UpT --map-users 0:0:10 --map-groups 0:0:10 --no-wait",
            "jc-cgroup --path /jc-tests-no-wait/a -p --no-wait",
        ] {
            // The program can still make processes in its PID namespace.
            let script = "read line; env true && echo done";
            let pid = start(s, line, script);
            // The test is PID 1 of the sandbox, and so the nearest subreaper.
            assert_eq!(status(pid, "PPid"), "1", "{line}");
            assert_eq!(fs::read_to_string(format!("/proc/{pid}/comm")).unwrap(), "sh\n", "{line}");
            end(s);
            assert_eq!(wait_for_line(&s.path("out"), ""), "done\n", "{line}");
            s.wait_for_no_process();
        }
        s.jc("jc-cgroup").args(["--remove", "/jc-tests-no-wait"]).run().code(0);
    });
}

#[test]
fn a_link_that_does_not_wait_fails_if_the_program_is_not_executed() {
    sandbox(|s| {
        for line in ["jc-unshare -p", "jc-unshare -Urp", "jc-cgroup --path /jc-tests-no-exec"] {
            let ran = s.sh(&format!("{line} --no-wait -- /none")).run();
            ran.code(127).stdout("").fails_as(line.split(' ').next().unwrap(), "/none");
            s.wait_for_no_process();
        }
        s.jc("jc-cgroup").args(["--remove", "/jc-tests-no-exec"]).run().code(0);
        let ran = s.jc("jc-cgroup").args(["--no-wait", "--", "true"]).run();
        ran.code(125).stdout("").fails_as("jc-cgroup", "--path");
    });
}

#[test]
fn a_group_of_a_path_is_in_every_hierarchy_and_stays() {
    sandbox(|s| {
        let path = "/jc-tests-path/a/b";
        let groups =
            s.jc("jc-cgroup").args(["--path", path, "--", "cat", "/proc/self/cgroup"]).run();
        let groups = groups.code(0).out();
        assert!(groups.lines().all(|line| line.ends_with(path)), "{groups}");
        // A second program joins the group, by execve(2) too.
        let ran = s.jc("jc-cgroup").args(["--path", path, "--pids", "7", "--exec", "--"]);
        ran.args(["cat", "/proc/self/cgroup"]).run().code(0).stdout(&groups);
        let stat = s.jc("jc-cgroup").args(["--stat", path]).run().code(0).out();
        let stat: Value = serde_json::from_str(&stat).unwrap();
        assert_eq!((&stat["name"], &stat["pids"]), (&path.into(), &0.into()));
        s.jc("jc-cgroup")
            .args(["--join", path, "--", "cat", "/proc/self/cgroup"])
            .run()
            .stdout(&groups);
        s.jc("jc-cgroup").arg("--list").run().code(0);
        s.jc("jc-cgroup").args(["--remove", path]).run().code(0);
        s.jc("jc-cgroup")
            .args(["--stat", path])
            .run()
            .code(125)
            .fails_as("jc-cgroup", "no such group");
        s.jc("jc-cgroup").args(["--remove", "/jc-tests-path"]).run().code(0);
        for path in ["a/b", "/", "/a/../b"] {
            s.jc("jc-cgroup")
                .args(["--path", path, "true"])
                .run()
                .code(125)
                .fails_as("jc-cgroup", "--path");
        }
    });
}

#[test]
fn a_joined_uts_namespace_gets_a_name_and_the_own_one_does_not() {
    sandbox(|s| {
        let script = "echo $$ ready; exec sleep 1000";
        let mut other = s.jc("jc-unshare").args(["-u", "--", "sh", "-c", script]).spawn();
        other.wait_for("ready");
        let pid = other.stdout_so_far().split(' ').next().unwrap().to_owned();
        let join = format!("uts=/proc/{pid}/ns/uts");
        let ran = s.jc("jc-unshare").args(["--join-ns", &join, "--hostname", "there", "hostname"]);
        ran.run().code(0).stdout("there\n");
        s.sh("hostname").run().stdout(&format!("{}\n", s.hostname()));
        let own = ["--join-ns", "uts=/proc/self/ns/uts", "--hostname", "there", "hostname"];
        s.jc("jc-unshare")
            .args(own)
            .run()
            .code(125)
            .stdout("")
            .fails_as("jc-unshare", "rename the host");
        other.signal(rustix::process::Signal::TERM);
        other.wait();
    });
}
