//! The cost of a waiting link of jc-unshare, and its errors while it waits.

#![cfg(target_os = "linux")]

use std::fs;

use jc_tests::memory::has_written_less_than;
use jc_tests::{Running, Sandbox, sandbox};
use rustix::process::Signal;

const TOOL: &str = "jc-unshare";

fn waiting(s: &Sandbox, options: &[&str], script: &str) -> Running {
    let mut running = s.jc(TOOL).args(options).args(["--", "sh", "-c", script]).spawn();
    running.wait_for("ready");
    running
}

#[test]
fn a_waiting_link_writes_to_little_memory() {
    sandbox(|s| {
        for options in [&["-p"][..], &["-p", "--init"]] {
            let link = waiting(s, options, "echo ready; read -r x; exec sleep 1000");
            has_written_less_than(&link, 250);
            link.signal(Signal::KILL);
            link.wait().killed_by(Signal::KILL);
        }
    });
}

/// The program gets the named signal in place of SIGKILL, and can end by itself.
#[test]
fn a_payload_gets_the_named_signal_when_its_link_is_killed() {
    sandbox(|s| {
        for name in ["TERM", "SIGTERM", "15"] {
            let script =
                "trap 'echo told >told; exit' TERM; echo ready; while :; do sleep 0.01; done";
            let link = waiting(s, &["-p", "--kill-child", name], script);
            link.signal(Signal::KILL);
            link.wait().killed_by(Signal::KILL);
            s.wait_for_no_process();
            assert_eq!(fs::read_to_string(s.path("told")).unwrap(), "told\n", "{name}");
            fs::remove_file(s.path("told")).unwrap();
        }
        for (options, why) in [
            (&["--kill-child", "TERM"][..], "--kill-child needs -p"),
            (&["-u", "--kill-child", "TERM"], "--kill-child needs -p"),
            (&["-p", "--kill-child", "NONE"], "not a signal"),
        ] {
            s.jc(TOOL).args(options).arg("true").run().code(125).stdout("").fails_as(TOOL, why);
        }
    });
}

/// The procfs on /proc is that of the host, where the numbers of a PID namespace mean other processes.
#[test]
fn a_chain_works_in_a_pid_namespace_without_a_procfs_of_its_own() {
    sandbox(|s| {
        // The payload ignores SIGTERM, and its number is in use inside too.
        let inner = "exec jc-unshare -p -- sh -c 'echo ready; exec sleep 1000'";
        let script = format!("true & true & true & wait; {inner}");
        let outer = ["jc-unshare", "-p", "--init", "--", "sh", "-c", &script];
        let mut running = s.cmd(outer[0]).args(&outer[1..]).spawn();
        running.wait_for("ready");
        running.signal(Signal::TERM);
        running.wait().code(143);

        let mapped = ["-U", "--map-users", "0:7:9", "--map-groups", "0:7:9", "--"];
        for options in [&["-p"][..], &[]] {
            let inner = [&[TOOL], options, &mapped[..], &["cat", "/proc/self/uid_map"]].concat();
            let ran = s.jc(TOOL).args(["-p", "--init", "--"]).args(inner).run().code(0);
            ran.stdout("         0          7          9\n");
        }
    });
}

/// The number of a descriptor that is not open may become that of a descriptor of jc-unshare itself.
#[test]
fn a_descriptor_that_is_not_open_is_an_error() {
    sandbox(|s| {
        for option in ["--info-fd", "--block-fd", "--status-fd"] {
            for number in ["3", "4", "5", "9", "4294967295"] {
                let join = format!("uts=/proc/{}/ns/uts", 1);
                let ran = s.jc(TOOL).args(["-p", "--join-ns", &join, option, number, "true"]).run();
                ran.code(125).stdout("").fails_as(TOOL, "Bad file descriptor");
            }
            let ran = s.jc(TOOL).args(["-p", option, "1", "true"]).run();
            ran.code(125).stdout("").fails_as(TOOL, "descriptors up to 2 belong to the program");
        }
    });
}

/// An exit code above 128 does not distinguish a code from a signal.
#[test]
fn the_event_of_the_end_has_the_signal() {
    sandbox(|s| {
        for (options, program, code, signal) in [
            ("-p", "exit 3", 3, "null"),
            ("-p", "exit 137", 137, "null"),
            ("-p --init", "exit 143", 143, "null"),
            ("-p --init", "kill -9 $$", 137, "9"),
            ("-p --init", "kill -TERM $$", 143, "15"),
            ("-p --init", "kill -64 $$", 192, "64"),
            ("-p", "exec /nonexistent", 127, "null"),
            ("-Urp --init", "kill -9 $$", 137, "9"),
        ] {
            let line = format!("jc-unshare {options} --status-fd 3 -- sh -c '{program}' 3>end");
            let ran = s.sh(&format!("{line}; grep exited end")).run();
            let end =
                format!(r#""event":"exited","link":"jc-unshare","code":{code},"signal":{signal}"#);
            ran.stdout(&format!("{{{end}}}\n"));
        }
    });
}
