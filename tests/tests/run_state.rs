//! What jc-run records, and the small tools that read it.

#![cfg(target_os = "linux")]

use std::fs;
use std::time::{Duration, Instant};

use jc_tests::cgroups::can_limit;
use jc_tests::roots::busybox_root;
use jc_tests::{Ran, Sandbox, sandbox, skip};
use rustix::process::Signal;
use serde_json::{Value, json};

/// jc-run over the small root.
fn run(s: &Sandbox, options: &[&str], payload: &[&str]) -> Ran {
    let run = s.jc("jc-run").args(options).args(["--rootfs", "root", "--"]);
    run.args(payload).run()
}

/// The ID of a detached container.
fn detached(s: &Sandbox, options: &[&str], payload: &[&str]) -> String {
    let ran = run(s, &[&["-d"], options].concat(), payload);
    ran.code(0).stderr("").out().trim_end().to_owned()
}

fn state(s: &Sandbox, id: &str) -> Value {
    let text = fs::read(format!("/run/jc/{id}/state.json"));
    serde_json::from_slice(&text.unwrap_or_else(|e| panic!("{id}: {e} {:?}", s.processes())))
        .unwrap()
}

fn list(s: &Sandbox, options: &[&str]) -> String {
    s.jc("jc-list").args(options).run().code(0).stderr("").out()
}

fn tool(s: &Sandbox, line: &str) -> Ran {
    s.sh(line).run()
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "never came: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Part of what is recorded is written while the chain starts.
#[test]
fn what_cannot_be_recorded_does_not_run_on() {
    sandbox(|s| {
        busybox_root(s, "root");
        let limits: &[&str] = if can_limit("pids") { &["--pids-limit", "9"] } else { &[] };
        let outcomes = (2..11).map(|inodes| {
            s.sh(&format!("mkdir small; mount -t tmpfs -o nr_inodes={inodes} none small"))
                .run()
                .code(0);
            let options = ["--state-dir", "small", "--network", "none"];
            let ran = run(s, &[&options, limits].concat(), &["sleep", "0.1"]);
            s.wait_for_no_process();
            assert_eq!(fs::read_dir(s.path("small")).unwrap().count(), 0, "{inodes} {ran}");
            s.sh("umount small; rmdir small").run().code(0);
            if ran.err().is_empty() {
                ran.code(0);
                return None;
            }
            let error = ran.err();
            ran.code(125).stdout("").fails_as("jc-run", "No space left on device");
            Some(error)
        });
        let errors: Vec<String> = outcomes.flatten().collect();
        for what in ["hostname", "state.json"] {
            assert!(errors.iter().any(|error| error.contains(what)), "{what}: {errors:?}");
        }
        assert!(errors.len() < 9, "{errors:?}");
    });
}

#[test]
fn a_full_state_directory_ends_the_start_with_one_line_and_keeps_nothing() {
    sandbox(|s| {
        busybox_root(s, "root");
        let memory: &[&str] = if can_limit("memory") { &["-m", "64M"] } else { &[] };
        let mut errors = 0;
        let limits = (2..13).map(|n| format!("nr_inodes={n}"));
        let limits: Vec<String> = limits.chain((1..9).map(|n| format!("size={n}p"))).collect();
        for options in [["-d"].as_slice(), &["--keep"], &["-d", "-i"]] {
            for limit in &limits {
                s.sh(&format!("mkdir small; mount -t tmpfs -o {limit} none small")).run().code(0);
                let place = ["--state-dir", "small/jc", "--network", "bridge"];
                let ran = run(s, &[&place, options, memory].concat(), &["sleep", "0.1"]);
                s.wait_for_no_process();
                let err = ran.err();
                if ran.status().code() != Some(0) {
                    let tool = err.split(':').next().unwrap();
                    ran.code(125).fails_as(tool, "No space left on device");
                    errors += 1;
                }
                // A container that has run and is kept is there, and has ended.
                if s.path("small/jc").exists() {
                    let tool =
                        |line| s.sh(&format!("export JC_STATE_DIR=/srv/small/jc; {line}")).run();
                    tool("jc-list -q").code(0).stdout("");
                    tool("jc-rm $(jc-list -aq)").code(0).stderr("");
                    assert_eq!(fs::read_dir(s.path("small/jc")).unwrap().count(), 0, "{err}");
                } else {
                    assert_eq!(fs::read_dir(s.path("small")).unwrap().count(), 0, "{err}");
                }
                s.sh("umount small; rmdir small").run().code(0);
            }
        }
        assert!(errors > 20, "{errors}");
    });
}

#[test]
fn a_container_that_ends_on_a_full_disk_has_ended_and_can_be_removed() {
    sandbox(|s| {
        busybox_root(s, "root");
        s.sh("mkdir -m 700 small; mount -t tmpfs -o size=1m,mode=700 none small").run().code(0);
        let tool = |line: &str| s.sh(&format!("JC_STATE_DIR=/srv/small {line}")).run();
        let run = "jc-run -d --name n --network none --rootfs root -- sleep 1000";
        tool(run).code(0).stderr("");
        s.sh("cat /dev/zero > small/fill").run().code(1);
        tool("jc-stop n").code(0).stderr("");
        s.wait_for_no_process();
        let listed = tool("jc-list -a").code(0).stderr("").out();
        assert!(listed.contains("exited ("), "{listed}");
        tool("jc-list -q").code(0).stdout("");
        tool("jc-rm n").code(0).stderr("");
        tool("jc-list -aq").code(0).stdout("");
        s.sh("umount small").run().code(0);
    });
}

#[test]
fn a_detached_container_whose_id_cannot_be_printed_ends() {
    sandbox(|s| {
        busybox_root(s, "root");
        let script = "echo said >&2; echo said; sleep 1000";
        let line = format!("jc-run -d --name n --rootfs root -- sh -c '{script}' >/dev/full");
        tool(s, &line).code(125).fails_as("jc-run", "write stdout: No space left on device");
        s.wait_for_no_process();
        tool(s, "jc-list -aq").code(0).stdout("");
        assert!(!fs::exists("/run/jc").unwrap());
    });
}

/// The directory of all state dirs goes with the last of them, so at any moment.
#[test]
fn a_state_dir_is_made_though_another_takes_the_place_along() {
    sandbox(|s| {
        busybox_root(s, "root");
        let ran = s
            .cmd("strace")
            .args(["--output=/dev/null", "--quiet=all", "--trace-path=/run/jc"])
            .arg("--inject=mkdirat:error=ENOENT:when=1")
            .arg("--")
            .arg(s.bin("jc-run"))
            .args(["--network", "none", "--rootfs", "root", "--", "echo", "ran"])
            .run();
        ran.code(0).stdout("ran\n").stderr("");
        assert!(!fs::exists("/run/jc").unwrap());
    });
}

/// The session that this project began with.
/// A SIGKILL may come before a start has recorded a state, or even before it has a directory.
#[test]
fn a_list_removes_the_base_that_a_killed_start_has_left() {
    sandbox(|s| {
        for left in ["mkdir 0123456789ab; ln -s 0123456789ab k", "ln -s 0123456789ab k", ":"] {
            s.sh(&format!("umask 077; mkdir /run/jc; cd /run/jc; {left}")).run().code(0);
            s.sh("jc-list -aq").run().code(0).stdout("").stderr("");
            assert!(!fs::exists("/run/jc").unwrap(), "{left}");
        }
    });
}

#[test]
fn a_container_is_listed_entered_logged_stopped_and_removed() {
    sandbox(|s| {
        busybox_root(s, "root");
        let ran =
            run(s, &[], &["sh", "-c", "hostname; ps > /tmp/ps; grep -c . /tmp/ps; ls /; touch /x"]);
        let out = ran.code(0).stderr("").out();
        let mut lines = out.lines();
        assert_eq!(lines.next().unwrap().len(), 12);
        assert_eq!(lines.next(), Some("3")); // the heading, sh as PID 1, ps
        assert_eq!(lines.collect::<Vec<_>>().join(" "), "bin dev etc proc root sys tmp var");
        s.sh("hostname").run().stdout(&format!("{}\n", s.hostname()));
        assert!(!fs::exists("/run/jc").unwrap(), "a container in the foreground leaves nothing");

        let id =
            detached(s, &["--name", "web"], &["sh", "-c", "echo out; echo err >&2; sleep 1000"]);
        assert!(id.len() == 12 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
        let table = list(s, &[]);
        let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!((row[0], row[1], row[2]), (id.as_str(), "web", "/srv/root"), "{table}");
        assert!(table.contains("up 0s") || table.contains("up 1s"), "{table}");
        let recorded = state(s, &id);
        assert_eq!(recorded["status"], "running");
        let pid = recorded["pid"].as_u64().unwrap();
        assert!(table.trim_end().ends_with(&pid.to_string()), "{table}");
        let first = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(first.contains(&format!("NSpid:\t{pid}\t1\n")), "{first}");

        wait_until("the log", || tool(s, "jc-logs web").out() == "out\n");
        tool(s, "jc-logs web").code(0).stdout("out\n").stderr("err\n");
        tool(s, "jc-stop web").code(0).stdout("").stderr("");
        s.wait_for_no_process();
        assert_eq!(list(s, &["-q"]), "");
        assert!(list(s, &["-a"]).contains("exited (143)"));
        tool(s, "jc-rm web").code(0).stdout("").stderr("");
        assert_eq!(list(s, &["-aq"]), "");
        assert!(!fs::exists("/run/jc").unwrap());
    });
}

#[test]
fn the_state_is_that_of_the_oci() {
    sandbox(|s| {
        busybox_root(s, "root");
        let options = ["--name", "n", "--label", "a.b=c", "--label", "d", "--stop-signal", "QUIT"];
        let id = detached(s, &options, &["sh", "-c", "exit 7"]);
        s.wait_for_no_process();
        let state = state(s, "n");
        let annotations = &state["annotations"];
        assert_eq!((&state["ociVersion"], &state["id"]), (&json!("1.2.0"), &json!(id)));
        assert_eq!((&state["status"], &state["pid"]), (&json!("stopped"), &Value::Null));
        assert_eq!(state["bundle"], json!(format!("/run/jc/{id}")));
        for (key, value) in [
            ("jc.name", "n"),
            ("jc.image", "/srv/root"),
            ("jc.command", "sh -c 'exit 7'"),
            ("jc.exit-code", "7"),
            ("jc.stop-signal", "QUIT"),
            ("a.b", "c"),
            ("d", ""),
        ] {
            assert_eq!(annotations[key], value, "{key}: {state}");
        }
        for key in ["jc.created", "jc.started", "jc.finished"] {
            let time: f64 = annotations[key].as_str().unwrap().parse().unwrap();
            let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
            assert!((now - 60.0..=now).contains(&time), "{key}: {state}");
        }
        assert_eq!(annotations["jc.signal"], Value::Null);
        let page = fs::read_to_string(jc_tests::workspace_dir().join("man/jc-state.5")).unwrap();
        for key in annotations.as_object().unwrap().keys().filter(|key| key.starts_with("jc.")) {
            assert!(page.contains(key.as_str()), "jc-state(5) does not know {key}");
        }
        let listed: Value = serde_json::from_str(&list(s, &["-a", "--json"])).unwrap();
        // The environment of the container is in the file only.
        let mut shown = state.clone();
        let join = shown.as_object_mut().unwrap().remove("join").unwrap();
        assert_eq!(listed, shown);
        assert!(page.contains(".It Cm join") && join["options"].as_array().is_some(), "{join}");
        // It is nobody else's business.
        for (path, mode) in [("", "700\n"), ("/n/", "700\n"), ("/n/stdout", "600\n")] {
            tool(s, &format!("stat -c %a /run/jc{path}")).stdout(mode);
        }
        tool(s, "jc-rm n").code(0);
    });
}

#[test]
fn the_status_leaves_no_doubt() {
    sandbox(|s| {
        busybox_root(s, "root");
        let events = |line: &str| -> Vec<Value> {
            let ran = tool(s, &format!("{line} 3>&1 >/dev/null 2>&1"));
            let text = ran.out();
            let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
            lines.collect()
        };
        let words = |events: &[Value]| -> Vec<String> {
            events.iter().map(|e| e["event"].as_str().unwrap().to_owned()).collect()
        };
        let line = "jc-run --status-fd 3 --rootfs root --";
        let ended = events(&format!("{line} sh -c 'exit 125'"));
        assert_eq!(words(&ended), ["created", "started", "exited", "removed"]);
        assert_eq!((&ended[2]["code"], &ended[2]["signal"]), (&json!(125), &Value::Null));
        assert!(ended.iter().all(|event| event["id"] == ended[0]["id"]));
        assert!(ended[1]["pid"].as_u64().unwrap() > 1);
        // What was not executed has not started.
        assert_eq!(words(&events(&format!("{line} nothing"))), ["created", "removed"]);
        let failed = events("jc-run --status-fd 3 --network bogus --rootfs root true");
        assert_eq!(words(&failed), ["created", "removed"]);
        let killed = events("jc-run --init --status-fd 3 --rootfs root -- sh -c 'kill -9 $$'");
        assert_eq!((&killed[2]["code"], &killed[2]["signal"]), (&json!(137), &json!(9)));
        // A code like that of a signal is none, and a descriptor for a report is the user's.
        for options in ["", "--init", "--network none", "--report 4 4>bill"] {
            let line = format!("jc-run --status-fd 3 {options} --rootfs root -- sh -c 'exit 137'");
            let code = &events(&line)[2];
            assert_eq!((&code["code"], &code["signal"]), (&json!(137), &Value::Null), "{options}");
        }
        let bill: Value = serde_json::from_slice(&fs::read(s.path("bill")).unwrap()).unwrap();
        assert_eq!(bill["exit_code"], 137);
        // Nobody reads a bill again that went through a FIFO.
        let line = "mkfifo fifo; jq .exit_code fifo & \
            timeout -s KILL 20 jc-run --status-fd 3 --report fifo --rootfs root -- sh -c 'exit 7'
            code=$?; wait $!; exit $code";
        tool(s, &format!("{{ {line}; }} 3>events")).code(7).stdout("7\n").stderr("");
        let line = "jc-run --status-fd 3 --rootfs root -- sh -c 'echo $$; sleep 1000 & wait'";
        let outside = format!("{{ {line} | (read -r one; jc-stop -s KILL $(jc-list -q)); }}");
        let killed = tool(s, &format!("{outside} 3>&1 >/dev/null 2>&1")).out();
        assert!(
            killed.contains(r#""code":137,"id""#) && killed.contains(r#""signal":9"#),
            "{killed}"
        );
        // Kept, and detached: the events come all the same.
        let kept = events("jc-run --keep --name k --status-fd 3 --rootfs root true");
        assert_eq!(words(&kept), ["created", "started", "exited"]);
        tool(s, "jc-rm k").code(0);
        let detached = events("jc-run -d --rm --status-fd 3 --rootfs root true");
        assert_eq!(words(&detached), ["created", "started", "exited", "removed"]);
        for number in ["1", "77"] {
            let ran = run(s, &["--status-fd", number], &["echo", "ran"]);
            ran.code(125).stdout("").fails_as("jc-run", "--status-fd");
        }
    });
}

#[test]
fn memory_that_ran_out_is_known() {
    sandbox(|s| {
        if !can_limit("memory") {
            skip!("this host has no memory controller");
        }
        busybox_root(s, "root");
        let dd = ["dd", "if=/dev/zero", "of=/dev/null", "count=1", "bs=200M"];
        run(s, &["-m", "64M", "--keep", "--name", "oom"], &dd).code(137);
        assert_eq!(state(s, "oom")["annotations"]["jc.oom"], "true");
        assert!(list(s, &["-a"]).contains("exited (137, out of memory)"));
        run(s, &["-m", "64M", "--keep", "--name", "other"], &["true"]).code(0);
        assert_eq!(state(s, "other")["annotations"]["jc.oom"], "false");
        tool(s, "jc-rm oom other").code(0);
    });
}

#[test]
fn detached_is_told_when_the_payload_runs_and_not_before() {
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
        run(s, &["-d", "--network", "x"], &["true"]).code(125).stdout("").fails_as("jc-net", "x");
        assert_eq!(list(s, &["-aq"]), "", "what never ran is not kept");
        // A payload that fails by itself has run.
        let id = detached(s, &[], &["sh", "-c", "echo said >&2; exit 125"]);
        s.wait_for_no_process();
        assert_eq!(state(s, &id)["annotations"]["jc.exit-code"], "125");
        tool(s, &format!("jc-logs {id}")).stdout("").stderr("said\n");
        tool(s, &format!("jc-rm {id}")).code(0);
        // Nothing of the caller's is held: its outputs, its stdin, its session.
        let script = "jc-run -d --name d --rootfs root -- sleep 1000 2>&1 </dev/stdin | cat";
        let id = s.sh(script).input("x").run().code(0).out();
        let pid = state(s, id.trim())["annotations"]["jc.supervisor"].clone();
        let pid = pid.as_str().unwrap().split(' ').next().unwrap().to_owned();
        tool(s, &format!("ps -o sid= -p {pid} | tr -d ' '")).stdout(&format!("{pid}\n"));
        let held = "for fd in 0 1 2; do readlink /proc/$PID/fd/$fd; done".replace("$PID", &pid);
        tool(s, &held).stdout("/dev/null\n/dev/null\n/dev/null\n");
        // The files of the log are not the payload's.
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
fn names_are_one_containers_and_ids_may_be_short() {
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
        // Two that begin the same, whatever they are called.
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
        // All or none.
        tool(s, "jc-rm aaaaaaaaaaa1 one").code(1).fails_as("jc-rm", "still runs");
        tool(s, "jc-rm -f aaaaaaaaaaa1 aaaaaaaaaaa2 one").code(0).stderr("");
        run(s, &["--name", "one"], &["true"]).code(0);
        assert!(!fs::exists("/run/jc").unwrap());
    });
}

#[test]
fn stopping_takes_the_signal_that_the_image_or_the_user_says() {
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
        // Who does not listen is killed, in its time; the others meanwhile are not waited for.
        let deaf = "trap '' TERM; echo ready; while :; do sleep 1; done";
        let ids: Vec<String> = (0..3).map(|_| detached(s, &[], &["sh", "-c", deaf])).collect();
        wait_until("ready", || {
            ids.iter().all(|id| tool(s, &format!("jc-logs {id}")).out() == "ready\n")
        });
        let start = Instant::now();
        tool(s, &format!("jc-stop -t 2 {}", ids.join(" "))).code(0);
        let took = start.elapsed();
        assert!((Duration::from_secs(2)..Duration::from_secs(6)).contains(&took), "{took:?}");
        for id in &ids {
            assert_eq!(state(s, id)["annotations"]["jc.signal"], "9");
        }
        tool(s, &format!("jc-stop {0}; jc-rm {0}", ids.join(" "))).code(0).stderr("");
        tool(s, "jc-stop -s NONSENSE x").code(1);
        let wrong = run(s, &["-d", "--stop-signal", "WHAT"], &["sleep", "1000"]);
        wrong.code(125).stdout("").fails_as("jc-run", "--stop-signal");
        // An image's is as good as none.
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
fn a_recycled_number_is_not_signalled() {
    sandbox(|s| {
        busybox_root(s, "root");
        let id = detached(s, &[], &["sleep", "1000"]);
        let supervisor = state(s, &id)["annotations"]["jc.supervisor"].clone();
        let pid: i32 = supervisor.as_str().unwrap().split(' ').next().unwrap().parse().unwrap();
        tool(s, &format!("kill -9 {pid}")).code(0);
        s.wait_for_no_process();
        // Another process gets the supervisor's number, and the payload's.
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
        // A container that goes meanwhile takes its files along, not the follower's.
        let script = "echo a; sleep 0.3; echo b";
        detached(s, &["--rm", "--name", "gone"], &["sh", "-c", script]);
        tool(s, "jc-logs -f gone").code(0).stdout("a\nb\n");
        // Much at once is all there.
        detached(s, &["--name", "much"], &["sh", "-c", "seq 300000"]);
        tool(s, "jc-logs -f much | wc -l").stdout("300000\n");
        tool(s, "jc-rm much").code(0);
    });
}

#[test]
fn stdin_stays_open_for_who_asks() {
    sandbox(|s| {
        busybox_root(s, "root");
        // Without -i there is nothing to read.
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
