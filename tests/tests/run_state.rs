//! The records of jc-run: the state directory, the state and the events.

#![cfg(target_os = "linux")]

mod run_state_support;

use std::fs;

use jc_tests::cgroups::can_limit;
use jc_tests::roots::busybox_root;
use jc_tests::{sandbox, skip};
use run_state_support::{detached, list, run, state, tool, wait_until};
use serde_json::{Value, json};

/// A part of the state is written while the chain starts.
#[test]
fn a_container_that_cannot_be_recorded_ends() {
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
                // A kept container that has run is in the list, as an ended one.
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

/// Another process may remove the directory of all state directories with its last container at any moment.
#[test]
fn a_state_directory_is_made_although_another_process_removes_its_parent() {
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

/// A SIGKILL may come before a start has recorded a state, or even before it has a directory.
#[test]
fn a_list_removes_the_directory_that_a_killed_start_has_left() {
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
        assert_eq!(lines.next(), Some("4")); // the heading, PID 1 behind a pipe, sh, ps
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
fn the_state_has_the_form_of_the_oci_specification() {
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
        // Other users have no access to the state.
        for (path, mode) in [("", "700\n"), ("/n/", "700\n"), ("/n/stdout", "600\n")] {
            tool(s, &format!("stat -c %a /run/jc{path}")).stdout(mode);
        }
        tool(s, "jc-rm n").code(0);
    });
}

#[test]
fn every_end_has_its_exit_status_and_its_events() {
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
        // A payload that was not executed has not started.
        assert_eq!(words(&events(&format!("{line} nothing"))), ["created", "removed"]);
        let failed = events("jc-run --status-fd 3 --network ns:/bogus --rootfs root true");
        assert_eq!(words(&failed), ["created", "removed"]);
        let killed = events("jc-run --init --status-fd 3 --rootfs root -- sh -c 'kill -9 $$'");
        assert_eq!((&killed[2]["code"], &killed[2]["signal"]), (&json!(137), &json!(9)));
        // A code above 128 is no signal, and a descriptor for a report belongs to the user.
        for options in ["", "--init", "--network none", "--report 4 4>bill"] {
            let line = format!("jc-run --status-fd 3 {options} --rootfs root -- sh -c 'exit 137'");
            let code = &events(&line)[2];
            assert_eq!((&code["code"], &code["signal"]), (&json!(137), &Value::Null), "{options}");
        }
        let bill: Value = serde_json::from_slice(&fs::read(s.path("bill")).unwrap()).unwrap();
        assert_eq!(bill["exit_code"], 137);
        // jc-run does not read a report back from a FIFO.
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
        // Kept and detached containers have the same events.
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
fn an_out_of_memory_kill_is_recorded() {
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
