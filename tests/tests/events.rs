//! `--status-fd`: the events of each link, alone and in a chain by hand, and of jc-run with all links.

#![cfg(target_os = "linux")]

use std::fs;
use std::time::{Duration, Instant};

use jc_tests::roots::busybox_root;
use jc_tests::{Sandbox, sandbox};
use rustix::process::Signal;
use serde_json::{Value, json};

/// The events that a command line writes to descriptor 3.
fn events(s: &Sandbox, line: &str) -> Vec<Value> {
    s.sh(&format!("{{ {line}; }} 3>events")).run();
    parsed(&fs::read_to_string(s.path("events")).unwrap())
}

fn parsed(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

/// The names of events with their links.
fn names(events: &[Value]) -> Vec<String> {
    let name = |event: &Value| {
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        format!("{} {}", text("link"), text("event"))
    };
    events.iter().map(name).collect()
}

/// The sorted keys of an event.
fn keys(event: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = event.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn ended(link: &str, code: u8, signal: Option<i32>) -> Value {
    json!({"event": "exited", "link": link, "code": code, "signal": signal})
}

#[test]
fn a_link_that_waits_reports_start_and_end() {
    sandbox(|s| {
        for (line, link) in [
            ("jc-unshare -p", "jc-unshare"),
            ("jc-unshare -Urp", "jc-unshare"),
            ("jc-unshare -pm --mount-proc", "jc-unshare"),
            ("jc-unshare -p --init", "jc-unshare"),
            ("jc-cgroup", "jc-cgroup"),
            ("jc-cgroup -p", "jc-cgroup"),
        ] {
            for (script, code, signal) in
                [("exit 3", 3, None), ("exit 137", 137, None), ("kill -9 $$", 137, Some(9))]
            {
                // PID 1 cannot kill itself.
                if signal.is_some() && line.contains('p') && !line.contains("--init") {
                    continue;
                }
                let found = events(s, &format!("{line} --status-fd 3 -- sh -c '{script}'"));
                let what = format!("{line} {script}: {found:?}");
                assert_eq!(keys(&found[0]), ["event", "link", "pid", "start-time"], "{what}");
                assert_eq!(found[0]["event"], "started", "{what}");
                assert_eq!(found[1], ended(link, code, signal), "{what}");
                assert_eq!(found.len(), if link == "jc-cgroup" { 3 } else { 2 }, "{what}");
            }
        }
        let killed = events(s, "timeout 0.3 jc-unshare -p --status-fd 3 -- sleep 100");
        assert_eq!(killed[1], ended("jc-unshare", 143, Some(15)));
    });
}

#[test]
fn the_payload_is_the_process_that_the_caller_sees() {
    sandbox(|s| {
        busybox_root(s, "root");
        for line in [
            "jc-unshare -p --status-fd 3 --",
            "jc-unshare -p --init --status-fd 3 --",
            "jc-unshare -Urpm --mount-proc --status-fd 3 --",
            "jc-cgroup --status-fd 3 --",
            "jc-unshare -p -- jc-rootfs --status-fd 3 root --",
            "jc-rootfs --status-fd 3 root --",
        ] {
            let script = format!("exec {line} sh -c 'echo ready; exec sleep 1000' 3>events");
            let mut running = s.sh(&script).spawn();
            running.wait_for("ready");
            let started = parsed(&fs::read_to_string(s.path("events")).unwrap()).remove(0);
            assert_eq!(started["event"], "started", "{line}");
            let stat = fs::read_to_string(format!("/proc/{}/stat", started["pid"])).unwrap();
            let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
            assert_eq!(fields[19], started["start-time"].to_string(), "{line}");
            running.signal(Signal::KILL);
            running.wait();
            s.wait_for_no_process();
            // The kill left a group, which the list removes.
            s.jc("jc-cgroup").arg("--list").run().code(0);
        }
    });
}

#[test]
fn a_program_that_is_not_executed_is_an_event() {
    sandbox(|s| {
        busybox_root(s, "root");
        fs::write(s.path("text"), "no program").unwrap();
        for (line, program, code, link) in [
            ("jc-unshare -p", "nothing", 127, "jc-unshare"),
            ("jc-unshare -p", "./text", 126, "jc-unshare"),
            ("jc-unshare -Urp", "nothing", 127, "jc-unshare"),
            ("jc-unshare -u", "nothing", 127, "jc-unshare"),
            ("jc-cgroup", "nothing", 127, "jc-cgroup"),
            ("jc-cgroup --exec --name e", "nothing", 127, "jc-cgroup"),
            ("jc-net --network none", "nothing", 127, "jc-net"),
        ] {
            let found = events(s, &format!("{line} --status-fd 3 -- {program}"));
            let failed = found.iter().find(|event| event["event"] == "exec-failed");
            let failed = failed.unwrap_or_else(|| panic!("{line}: {found:?}"));
            assert_eq!(keys(failed), ["code", "error", "event", "link"]);
            assert_eq!((&failed["code"], &failed["link"]), (&json!(code), &json!(link)), "{line}");
            assert!(failed["error"].as_str().unwrap().contains(program), "{failed}");
        }
        s.jc("jc-cgroup").args(["--remove", "e"]).run();
        let found = events(s, "jc-rootfs --status-fd 3 root -- nothing");
        assert_eq!(names(&found), ["jc-rootfs started", "jc-rootfs exec-failed"]);
        assert_eq!(found[1]["code"], 127);
        // A step before the execution fails.
        let found = events(s, "jc-rootfs --status-fd 3 -u nobody_at_all root -- true");
        assert_eq!((&found[1]["event"], &found[1]["code"]), (&json!("exec-failed"), &json!(125)));
    });
}

#[test]
fn a_cgroup_reports_what_was_used() {
    sandbox(|s| {
        let line = "jc-cgroup --report usage.json --status-fd 3 -- sh -c 'exit 4'";
        let found = events(s, line);
        assert_eq!(names(&found), ["jc-cgroup started", "jc-cgroup exited", "jc-cgroup usage"]);
        let mut usage = found[2].clone();
        for key in ["event", "link"] {
            usage.as_object_mut().unwrap().remove(key);
        }
        let report: Value =
            serde_json::from_slice(&fs::read(s.path("usage.json")).unwrap()).unwrap();
        assert_eq!(usage, report);
        assert_eq!(usage["exit_code"], 4);
    });
}

#[test]
fn a_network_is_an_event() {
    sandbox(|s| {
        let found = events(s, "jc-net --status-fd 3 -- true");
        let members = [
            "addresses",
            "bridge",
            "event",
            "gateways",
            "host-interface",
            "interface",
            "link",
            "mac",
            "mtu",
            "network",
            "ports",
        ];
        assert_eq!((found.len(), keys(&found[0])), (1, members.to_vec()));
        for mode in ["none", "host"] {
            let found = events(s, &format!("jc-net --network {mode} --status-fd 3 -- true"));
            assert_eq!(keys(&found[0]), ["addresses", "event", "link", "network"]);
            assert_eq!((found.len(), &found[0]["network"]), (1, &json!(mode)));
        }
        // A published port makes jc-net wait.
        let found = events(s, "jc-net -p 127.0.0.1:8000:80 --status-fd 3 -- sh -c 'exit 9'");
        assert_eq!(names(&found), ["jc-net network", "jc-net started", "jc-net exited"]);
        let port =
            json!({"protocol": "tcp", "host-address": "127.0.0.1", "host-port": 8000, "port": 80});
        assert_eq!(found[0]["ports"], json!([port]));
        assert_eq!(found[2], ended("jc-net", 9, None));
    });
}

/// The event is longer than the capacity of a pipe.
#[test]
fn an_event_may_be_longer_than_a_pipe() {
    sandbox(|s| {
        busybox_root(s, "root");
        let ran = s.sh("ulimit -n 4096; jc-net -p 127.0.0.1:20000-20999:20000-20999 --status-fd 3 -- true 3>&1 | cat").run();
        let found = parsed(&ran.stderr("").out());
        assert_eq!(found[0]["ports"].as_array().unwrap().len(), 1000);
        let line =
            "jc-run --keep --name many -p 127.0.0.1:20000-20999:20000-20999 --rootfs root -- true";
        s.sh(&format!("ulimit -n 4096; {line}")).run().code(0).stderr("");
        let state = fs::read_to_string("/run/jc/many/state.json").unwrap();
        assert!(state.contains("127.0.0.1:20999->20999/tcp"));
        s.jc("jc-rm").arg("many").run().code(0);
    });
}

#[test]
fn a_chain_shares_one_descriptor() {
    sandbox(|s| {
        busybox_root(s, "root");
        let chain =
            "jc-cgroup --status-fd 3 -- jc-net --status-fd 3 -- jc-unshare --status-fd 3 -p --";
        let found = events(s, &format!("{chain} sh -c 'echo \"\\\"mine\\\"\" >&3; exit 6'"));
        let all = [
            "jc-cgroup started",
            "jc-net network",
            "jc-unshare started",
            " ",
            "jc-unshare exited",
            "jc-cgroup exited",
            "jc-cgroup usage",
        ];
        let mut sorted = names(&found);
        sorted.sort();
        let mut expected = all.map(str::to_owned).to_vec();
        expected.sort();
        // A link and its program start concurrently.
        assert_eq!(sorted, expected);
        assert_eq!(found.last().unwrap()["event"], "usage");
        assert_eq!(found[found.len() - 3], ended("jc-unshare", 6, None));
        assert_eq!(found[found.len() - 2], ended("jc-cgroup", 6, None));
        // jc-rootfs reports the same process as jc-unshare.
        let found = events(s, &format!("{chain} jc-rootfs --status-fd 3 root -- true"));
        let pids: Vec<&Value> = found
            .iter()
            .filter(|event| event["event"] == "started" && event["link"] != "jc-cgroup")
            .map(|event| &event["pid"])
            .collect();
        assert_eq!(pids.len(), 2, "{found:?}");
        assert_eq!(pids[0], pids[1]);
    });
}

#[test]
fn a_payload_of_jc_rootfs_does_not_inherit_the_descriptor() {
    sandbox(|s| {
        busybox_root(s, "root");
        for options in ["", "--preserve-fds 1", "--preserve-fds 5", "--new-session"] {
            let line = format!("jc-rootfs {options} --status-fd 3 root -- sh -c 'echo forged >&3'");
            let found = events(s, &line);
            assert_eq!(names(&found), ["jc-rootfs started"], "{options}");
        }
        // The pipe ends at the execution of the payload, while the payload runs.
        for line in [
            "jc-rootfs --status-fd 3 root --",
            "jc-cgroup -- jc-unshare -p -- jc-rootfs --status-fd 3 root --",
            "jc-unshare -p --init-fd 9 -- jc-rootfs --init-fd 9 --status-fd 3 root --",
            "setsid jc-rootfs --new-session --status-fd 3 root --",
        ] {
            let script = format!(
                "{{ {line} sleep 1000 3>&1 >/dev/null & echo $! >pid; }} | cat; kill $(cat pid)"
            );
            let start = Instant::now();
            let ran = s.sh(&script).run();
            assert!(start.elapsed() < Duration::from_secs(60), "{line}");
            assert_eq!(names(&parsed(&ran.out())), ["jc-rootfs started"], "{line}");
            s.wait_for_no_process();
        }
    });
}

#[test]
fn a_reader_that_has_gone_changes_nothing() {
    sandbox(|s| {
        busybox_root(s, "root");
        for line in [
            "jc-unshare -p --status-fd 3 --",
            "jc-cgroup --status-fd 3 --",
            "jc-net --network none --status-fd 3 --",
            "jc-rootfs --status-fd 3 root --",
            "jc-run -i --status-fd 3 --rootfs root --",
        ] {
            // The reader closes the pipe before the first event.
            let closed = "rm -f pipe; mkfifo pipe; exec 4<>pipe; exec 3>pipe; exec 4<&-";
            s.sh(&format!("{closed}; {line} sh -c 'exit 4'; echo $?"))
                .run()
                .stdout("4\n")
                .stderr("");
            s.sh(&format!("{closed}; {line} nothing 2>err; echo $?")).run().stdout("127\n");
            // The reader closes the pipe after the first event.
            let script = format!(
                "rm -f go; mkfifo go; exec 5<>go; \
                 {{ {line} sh -c 'read -r go; exit 4' 3>&1 >&2 <&5 5>&-; echo $? >code; }} | \
                 {{ read -r event; exec <&-; echo go >&5; }}; cat code"
            );
            s.sh(&script).run().stdout("4\n").stderr("");
        }
    });
}

/// A payload has filled the pipe, and nobody reads it.
#[test]
fn a_full_pipe_holds_a_link_up_for_two_seconds_at_most() {
    sandbox(|s| {
        for line in ["jc-unshare -p --status-fd 3 --", "jc-cgroup --status-fd 3 --"] {
            // The payload reads the event of its start, and then fills the pipe.
            let fill =
                "read -r started <&3; timeout 0.3 dd if=/dev/zero bs=4096 status=none >&3; exit 4";
            let script = format!("rm -f full; mkfifo full; exec 3<>full; {line} sh -c '{fill}'");
            let start = Instant::now();
            s.sh(&script).run().code(4);
            assert!(start.elapsed() < Duration::from_secs(30), "{line}");
            s.wait_for_no_process();
        }
        // Before the start, an event that nobody reads is an error.
        let script = "mkfifo other; exec 4<>other; timeout 0.3 dd if=/dev/zero bs=4096 status=none >&4; \
                      jc-unshare -p --status-fd 4 -- sleep 1000";
        s.sh(script).run().code(125).fails_as("jc-unshare", "write --status-fd");
    });
}

#[test]
fn a_descriptor_that_cannot_be_written_is_a_usage_error() {
    sandbox(|s| {
        busybox_root(s, "root");
        for line in ["jc-unshare -p", "jc-cgroup", "jc-net --network none", "jc-rootfs", "jc-run"] {
            let tool = line.split(' ').next().unwrap();
            let root = match tool {
                "jc-rootfs" => "root",
                "jc-run" => "--rootfs root",
                _ => "",
            };
            for (number, redirection) in
                [("1", ""), ("3", ""), ("77", ""), ("3", "3</dev/null"), ("4294967295", "")]
            {
                let script =
                    format!("exec {line} --status-fd {number} {root} -- echo ran {redirection}");
                s.sh(&script).run().code(125).stdout("").fails_as(tool, "--status-fd");
            }
        }
    });
}

/// A payload writes to every descriptor that it can open.
#[test]
fn a_payload_cannot_forge_the_events_of_its_container() {
    sandbox(|s| {
        busybox_root(s, "root");
        let forged = r#"{"event":"started","link":"jc-rootfs","pid":1,"start-time":1}"#;
        let ended = r#"{"event":"exited","link":"jc-unshare","code":0,"signal":15}"#;
        let forge = format!(
            "for fd in /proc/[0-9]*/fd/*; do \
             case $(readlink $fd) in pipe:*) echo '\n{forged}\n{ended}' >$fd;; esac; done 2>/dev/null; exit 7"
        );
        fs::write(s.path("root/forge"), forge).unwrap();
        for options in ["", "--init", "--pid host", "--network none", "-u 5"] {
            let line = format!("jc-run --keep --name forged {options} --rootfs root -- sh /forge");
            s.sh(&format!("{line} </dev/null >/dev/null 2>&1")).run().code(7);
            let state: Value =
                serde_json::from_slice(&fs::read("/run/jc/forged/state.json").unwrap()).unwrap();
            let note = |key: &str| state["annotations"][format!("jc.{key}")].clone();
            assert_eq!((note("exit-code"), note("signal")), (json!("7"), Value::Null), "{options}");
            s.jc("jc-rm").arg("forged").run().code(0);
        }
    });
}

#[test]
fn a_state_directory_has_no_file_for_what_links_report() {
    sandbox(|s| {
        busybox_root(s, "root");
        s.sh("jc-run -d --name n -m 64M --init --rootfs root -- sleep 1000").run().code(0);
        let files = s.sh("ls /run/jc/n/").run().code(0).out();
        let files: Vec<&str> = files.lines().collect();
        assert_eq!(files, ["hostname", "hosts", "resolv.conf", "state.json", "stderr", "stdout"]);
        s.jc("jc-rm").args(["-f", "n"]).run().code(0);
    });
}
