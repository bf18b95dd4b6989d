//! The life of a detached container: jc-list, jc-stop, jc-logs and jc-rm.

#![cfg(target_os = "linux")]

mod run_state_support;

use std::fs;

use jc_tests::cgroups::can_limit;
use jc_tests::roots::busybox_root;
use jc_tests::{sandbox, skip};
use run_state_support::{detached, list, run, state, tool, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};

#[test]
fn detach_returns_when_the_payload_runs_and_not_before() {
    sandbox(|s| {
        busybox_root(s, "root");
        for (payload, code, tool_name, text) in
            [(&["nothing"][..], 127, "jc-rootfs", "nothing"), (&["/etc"], 126, "jc-rootfs", "/etc")]
        {
            let ran = run(s, &["-d"], payload);
            ran.code(code).stdout("").fails_as(tool_name, text);
        }
        run(s, &["-d", "-v", "/none:/x"], &["true"])
            .code(125)
            .stdout("")
            .fails_as("jc-rootfs", "/none");
        run(s, &["-d", "--network", "x"], &["true"]).code(125).stdout("").fails_as("jc-run", "'x'");
        assert_eq!(list(s, &["-aq"]), "", "what never ran is not kept");
        // A payload that fails by itself has run.
        let id = detached(s, &[], &["sh", "-c", "echo said >&2; exit 125"]);
        s.wait_for_no_process();
        assert_eq!(state(s, &id)["annotations"]["jc.exit-code"], "125");
        tool(s, &format!("jc-logs {id}")).stdout("").stderr("said\n");
        tool(s, &format!("jc-rm {id}")).code(0);
        // The supervisor has no stream of the caller open, and is in another session.
        let script = "jc-run -d --name d --rootfs root -- sleep 1000 2>&1 </dev/stdin | cat";
        let id = s.sh(script).input("x").run().code(0).out();
        let pid = state(s, id.trim())["annotations"]["jc.supervisor"].clone();
        let pid = pid.as_str().unwrap().split(' ').next().unwrap().to_owned();
        tool(s, &format!("ps -o sid= -p {pid} | tr -d ' '")).stdout(&format!("{pid}\n"));
        let held = "for fd in 0 1 2; do readlink /proc/$PID/fd/$fd; done".replace("$PID", &pid);
        tool(s, &held).stdout("/dev/null\n/dev/null\n/dev/null\n");
        // The payload has no file of the log open.
        let payload = state(s, "d")["pid"].clone();
        let held =
            format!("for fd in 0 1 2; do readlink /proc/{payload}/fd/$fd; done | tr -d '0-9'");
        tool(s, &held).stdout("/dev/null\npipe:[]\npipe:[]\n");
        tool(s, "jc-rm -f d").code(0);
    });
}

#[test]
fn rm_and_keep_decide_what_stays() {
    sandbox(|s| {
        busybox_root(s, "root");
        fs::create_dir_all(s.path("root/data")).unwrap();
        run(s, &["-d", "--rm"], &["true"]).code(0);
        s.wait_for_no_process();
        assert_eq!(list(s, &["-aq"]), "");
        let record = r#"{"jc":1,"layers":["/srv/root"],"config":{"Volumes":{"/data":{}}}}"#;
        fs::write(s.path("record"), format!("{record}\n")).unwrap();
        let script = "echo new > /etc/new; echo kept > /data/file; exit 3";
        let line = ["--keep", "--name", "k", "--record", "record", "--", "sh", "-c", script];
        s.jc("jc-run").args(line).run().code(3).stderr("");
        assert_eq!(fs::read_to_string("/run/jc/k/volumes/changes/upper/etc/new").unwrap(), "new\n");
        assert_eq!(fs::read_to_string("/run/jc/k/volumes/0/file").unwrap(), "kept\n");
        assert!(!s.path("root/etc/new").exists() && !s.path("root/data/file").exists());
        assert!(list(s, &["-a"]).contains("exited (3)"));
        tool(s, "jc-logs k").code(1).stdout("").fails_as("jc-logs", "no logs");
        tool(s, "jc-rm k").code(0);
        run(s, &["--rm", "--keep"], &["true"]).code(125).fails_as("jc-run", "--keep");
    });
}

#[test]
fn a_name_belongs_to_one_container_and_ids_may_be_short() {
    sandbox(|s| {
        busybox_root(s, "root");
        let id = detached(s, &["--name", "one"], &["sleep", "1000"]);
        let again = run(s, &["--name", "one"], &["echo", "ran"]);
        again.code(125).stdout("").fails_as("jc-run", "--name one");
        for bad in ["", "-x", "a/b", "..", ".x", "a b", &"x".repeat(65)] {
            let ran = run(s, &[&format!("--name={bad}")], &["echo", "ran"]);
            ran.code(125).stdout("").fails_as("jc-run", "--name");
        }
        for word in [id.as_str(), &id[..1], &id[..6], "one"] {
            tool(s, &format!("jc-exec {word} echo in")).code(0).stdout("in\n");
        }
        // Two IDs with the same beginning.
        for twin in ["aaaaaaaaaaa1", "aaaaaaaaaaa2"] {
            let stopped = json!({"ociVersion": "1.2.0", "id": twin, "status": "stopped",
                "bundle": format!("/run/jc/{twin}")});
            fs::create_dir(format!("/run/jc/{twin}")).unwrap();
            fs::write(format!("/run/jc/{twin}/state.json"), stopped.to_string()).unwrap();
        }
        for (tool_name, code) in [("jc-stop", 1), ("jc-rm", 1), ("jc-logs", 1)] {
            tool(s, &format!("{tool_name} aaaa")).code(code).fails_as(tool_name, "aaaa");
            tool(s, &format!("{tool_name} zzz")).code(code).fails_as(tool_name, "zzz");
            tool(s, tool_name).code(2).fails_as(tool_name, "ID");
            tool(s, &format!("{tool_name} --nonsense x")).code(2).fails_as(tool_name, "--nonsense");
        }
        tool(s, "jc-exec zzz true").code(125).fails_as("jc-exec", "zzz");
        tool(s, "jc-exec one").code(125).fails_as("jc-exec", "no program");
        tool(s, "jc-rm ../one").code(1).fails_as("jc-rm", "../one");
        // jc-rm removes the others.
        tool(s, "jc-rm one aaaaaaaaaaa1").code(1).fails_as("jc-rm", "one: still runs");
        tool(s, "jc-rm aaaaaaaaaaa1").code(1).fails_as("jc-rm", "no such container");
        tool(s, "jc-rm -f aaaaaaaaaaa2 one").code(0).stderr("");
        run(s, &["--name", "one"], &["true"]).code(0);
        assert!(!fs::exists("/run/jc").unwrap());
    });
}

#[test]
fn the_image_or_the_user_chooses_the_stop_signal() {
    sandbox(|s| {
        busybox_root(s, "root");
        let script = "trap 'echo quit; exit 3' QUIT; trap 'echo term; exit 4' TERM
            trap 'echo rt; exit 5' 37; echo ready; while :; do sleep 0.02; done";
        for (options, stop, code, said) in [
            (&[][..], "", "4", "term"),
            (&["--stop-signal", "SIGQUIT"], "", "3", "quit"),
            (&["--stop-signal", "SIGQUIT"], "-s TERM", "4", "term"),
            (&["--stop-signal", "SIGRTMIN+3"], "", "5", "rt"),
        ] {
            let id = detached(s, options, &["sh", "-c", script]);
            wait_until("ready", || tool(s, &format!("jc-logs {id}")).out().contains("ready"));
            tool(s, &format!("jc-stop {stop} {id}")).code(0);
            assert_eq!(state(s, &id)["annotations"]["jc.exit-code"], code, "{options:?} {stop}");
            assert!(tool(s, &format!("jc-logs {id}")).out().contains(said));
            tool(s, &format!("jc-rm {id}")).code(0);
        }
        // A payload that ignores the signal is killed after its time, and the others end earlier.
        let deaf = "trap '' TERM; echo ready; while :; do sleep 1; done";
        let ids: Vec<String> = (0..3).map(|_| detached(s, &[], &["sh", "-c", deaf])).collect();
        wait_until("ready", || {
            ids.iter().all(|id| tool(s, &format!("jc-logs {id}")).out() == "ready\n")
        });
        tool(s, &format!("jc-stop -t 2 {}", ids.join(" "))).code(0);
        for id in &ids {
            assert_eq!(state(s, id)["annotations"]["jc.signal"], "9");
        }
        tool(s, &format!("jc-stop {0}; jc-rm {0}", ids.join(" "))).code(0).stderr("");
        tool(s, "jc-stop -s NONSENSE x").code(1);
        let wrong = run(s, &["-d", "--stop-signal", "WHAT"], &["sleep", "1000"]);
        wrong.code(125).stdout("").fails_as("jc-run", "--stop-signal");
        // A wrong signal of an image is ignored.
        let record = r#"{"jc":1,"rootfs":"/srv/root","config":{"StopSignal":"WHAT"}}"#;
        let id = tool(s, &format!("echo '{record}' | jc-run -d --rm -- sleep 1000")).out();
        tool(s, &format!("jc-stop -s WHAT {id}")).code(2).fails_as("jc-stop", "WHAT");
        tool(s, &format!("jc-stop {id}")).code(0).stderr("");
        assert_eq!(list(s, &["-aq"]), "");
    });
}

#[test]
fn a_frozen_container_can_be_stopped_and_removed() {
    sandbox(|s| {
        if !can_limit("memory") {
            skip!("this host has no memory controller");
        }
        busybox_root(s, "root");
        let script = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.02; done";
        for line in ["jc-stop", "jc-stop -t 0", "jc-rm -f"] {
            let id = detached(s, &["-m", "64M", "--network", "none"], &["sh", "-c", script]);
            wait_until("ready", || tool(s, &format!("jc-logs {id}")).out() == "ready\n");
            let freeze = tool(s, &format!("jc-cgroup --freeze {id}"));
            if freeze.err().contains("can freeze") {
                tool(s, &format!("jc-rm -f {id}")).code(0);
                skip!("no hierarchy of this host can freeze");
            }
            freeze.code(0);
            tool(s, &format!("{line} {id}")).code(0).stderr("");
            s.wait_for_no_process();
            if line == "jc-stop" {
                assert_eq!(state(s, &id)["annotations"]["jc.exit-code"], "5");
            }
            if line != "jc-rm -f" {
                tool(s, &format!("jc-rm {id}")).code(0).stderr("");
            }
            assert!(!fs::exists("/run/jc").unwrap());
        }
    });
}

#[test]
fn a_container_of_stopped_processes_can_be_stopped_and_removed() {
    sandbox(|s| {
        busybox_root(s, "root");
        for who in ["supervisor", "link", "payload"] {
            for line in ["jc-stop", "jc-rm -f"] {
                let id = detached(s, &["--init", "--network", "none"], &["sleep", "1000"]);
                let recorded = state(s, &id);
                let words = recorded["annotations"]["jc.supervisor"].as_str().unwrap();
                let supervisor = words.split(' ').next().unwrap();
                let pid = match who {
                    "supervisor" => supervisor.to_owned(),
                    "link" => tool(s, &format!("ps -o pid= --ppid {supervisor}")).out(),
                    _ => recorded["pid"].to_string(),
                };
                tool(s, &format!("kill -STOP {pid}")).code(0);
                tool(s, &format!("{line} {id}")).code(0).stderr("");
                s.wait_for_no_process();
                if line == "jc-stop" {
                    assert_eq!(state(s, &id)["annotations"]["jc.signal"], "15", "{who}");
                    tool(s, &format!("jc-rm {id}")).code(0).stderr("");
                }
                assert!(!fs::exists("/run/jc").unwrap(), "{who} {line}");
            }
        }
    });
}

#[test]
fn a_reused_pid_gets_no_signal() {
    sandbox(|s| {
        busybox_root(s, "root");
        let id = detached(s, &[], &["sleep", "1000"]);
        let supervisor = state(s, &id)["annotations"]["jc.supervisor"].clone();
        let pid: i32 = supervisor.as_str().unwrap().split(' ').next().unwrap().parse().unwrap();
        tool(s, &format!("kill -9 {pid}")).code(0);
        s.wait_for_no_process();
        // Another process gets the PID of the supervisor, and that of the payload.
        let mut sleeper = s.cmd("sleep").arg("1000").spawn();
        let path = format!("/run/jc/{id}/state.json");
        let mut forged: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        for key in ["jc.supervisor", "jc.process"] {
            forged["annotations"][key] = json!(format!("{} 1", sleeper.pid()));
        }
        fs::write(&path, forged.to_string()).unwrap();
        let lock = fs::File::open(format!("/run/jc/{id}")).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        tool(s, &format!("jc-stop -t 0 {id}")).code(0);
        tool(s, &format!("jc-exec {id} true")).code(125).fails_as("jc-exec", "ended");
        drop(lock);
        assert!(list(s, &["-a"]).contains("exited (unknown)"));
        tool(s, &format!("jc-rm -f {id}")).code(0);
        assert!(fs::exists(format!("/proc/{}/stat", sleeper.pid())).unwrap());
        sleeper.signal(Signal::TERM);
        sleeper.wait_for("");
        sleeper.wait().killed_by(Signal::TERM);
    });
}

#[test]
fn logs_are_followed_until_the_end() {
    sandbox(|s| {
        busybox_root(s, "root");
        let script =
            "i=0; while [ $i -lt 20 ]; do echo $i; echo e$i >&2; i=$((i+1)); sleep 0.02; done";
        let id = detached(s, &["--name", "l"], &["sh", "-c", script]);
        let ran = tool(s, "jc-logs -f l").code(0);
        let numbers: String = (0..20).map(|n| format!("{n}\n")).collect();
        let errors: String = (0..20).map(|n| format!("e{n}\n")).collect();
        ran.stdout(&numbers).stderr(&errors);
        tool(s, "jc-logs -n 2 l").stdout("18\n19\n").stderr("e18\ne19\n");
        tool(s, "jc-logs -n 0 l").stdout("").stderr("");
        tool(s, "jc-logs --stdout l").stdout(&numbers).stderr("");
        tool(s, "jc-logs --stderr -n 1 l").stdout("").stderr("e19\n");
        tool(s, "jc-logs -f -n 1 l").stdout("19\n").stderr("e19\n");
        tool(s, "jc-logs l | head -1").code(0).stdout("0\n");
        tool(s, &format!("jc-rm {id}")).code(0);
        // jc-logs has the files open, so it prints them also after the removal of the container.
        let script = "echo a; read -r go; echo b";
        let id = detached(s, &["-i", "--rm", "--name", "gone"], &["sh", "-c", script]);
        let mut follows = s.sh("jc-logs -f gone").spawn();
        follows.wait_for("a\n");
        tool(s, &format!("echo go > /run/jc/{id}/stdin")).code(0);
        follows.wait().code(0).stdout("a\nb\n");
        // A large output is complete.
        detached(s, &["--name", "much"], &["sh", "-c", "seq 300000"]);
        tool(s, "jc-logs -f much | wc -l").stdout("300000\n");
        tool(s, "jc-rm much").code(0);
    });
}

#[test]
fn stdin_stays_open_with_interactive() {
    sandbox(|s| {
        busybox_root(s, "root");
        // Without -i stdin is empty.
        let id = detached(s, &[], &["cat"]);
        s.wait_for_no_process();
        assert_eq!(state(s, &id)["annotations"]["jc.exit-code"], "0");
        tool(s, &format!("jc-rm {id}")).code(0);
        let id = detached(s, &["-i"], &["sh"]);
        tool(s, &format!("echo 'echo heard' > /run/jc/{id}/stdin")).code(0);
        wait_until("the answer", || tool(s, &format!("jc-logs {id}")).out() == "heard\n");
        tool(s, &format!("echo 'exit 6' > /run/jc/{id}/stdin")).code(0);
        s.wait_for_no_process();
        assert_eq!(state(s, &id)["annotations"]["jc.exit-code"], "6");
        tool(s, &format!("jc-rm {id}")).code(0);
    });
}
