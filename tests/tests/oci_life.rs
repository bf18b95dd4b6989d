//! The life of a container of jc-oci: create, start, kill, delete, and kills of jc-oci itself.

#![cfg(target_os = "linux")]

mod oci_support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use jc_tests::volume::volume;
use jc_tests::{Running, sandbox, wait_until};
use oci_support::Bundle;
use rustix::process::Signal;
use serde_json::{Value, json};

/// A program that ends at a signal with a status of its own.
const TRAP: &str = "trap 'echo term; exit 3' TERM; echo up; while :; do sleep 0.1; done";

#[test]
fn a_container_lives_from_create_to_delete() {
    sandbox(|s| {
        let mut bundle = Bundle::new(s, TRAP);
        bundle.change(|config| config["annotations"] = json!({"a.b": "c"}));
        bundle.create().code(0);
        assert_eq!(bundle.status("c"), "created");
        let state: Value =
            serde_json::from_str(&bundle.oci(&["state", "c"]).run().code(0).out()).unwrap();
        assert_eq!(state["pid"], bundle.pid());
        assert_eq!(state["bundle"], bundle.path.to_str().unwrap());
        assert_eq!((&state["id"], &state["annotations"]["a.b"]), (&json!("c"), &json!("c")));
        assert_eq!(bundle.out(), "");
        bundle.oci(&["start", "c"]).run().code(0).stderr("");
        assert_eq!(bundle.status("c"), "running");
        wait_until("output", || bundle.out() == "up\n");
        bundle.oci(&["list", "-q"]).run().code(0).stdout("c\n");
        let running = "cannot start an already running container";
        bundle.oci(&["start", "c"]).run().code(1).fails_as("jc-oci", running);
        let exists = "container with id exists: c";
        bundle
            .oci(&["create", "-b"])
            .arg(&bundle.path)
            .arg("c")
            .run()
            .code(1)
            .fails_as("jc-oci", exists);
        let runs = "cannot delete container c that is not stopped: running";
        bundle.oci(&["delete", "c"]).run().code(1).fails_as("jc-oci", runs);
        bundle.oci(&["kill", "c", "SIGTERM"]).run().code(0);
        bundle.wait_for("stopped");
        bundle.oci(&["kill", "c"]).run().code(1).fails_as("jc-oci", "container not running");
        bundle
            .oci(&["start", "c"])
            .run()
            .code(1)
            .fails_as("jc-oci", "cannot start a container that has stopped");
        assert_eq!(bundle.out(), "up\nterm\n");
        bundle.oci(&["delete", "c"]).run().code(0).stderr("");
        bundle.assert_gone();
    });
}

#[test]
fn run_waits_and_exits_as_the_program() {
    sandbox(|s| {
        let mut bundle = Bundle::new(s, "cat; echo err >&2; exit 7");
        let run = bundle.oci(&["run", "-b"]).arg(&bundle.path).arg("c").input("in\n").run();
        run.code(7).stdout("in\n").stderr("err\n");
        bundle.assert_gone();
        bundle.change(|config| config["process"]["args"] = json!(["sh", "-c", TRAP]));
        let mut run = bundle.oci(&["run", "-b"]).arg(&bundle.path).arg("c").spawn();
        run.wait_for("up");
        run.signal(Signal::TERM);
        run.wait().code(3);
        bundle.change(|config| config["process"]["args"] = json!(["sleep", "1000"]));
        let run: Running = bundle.oci(&["run", "-b"]).arg(&bundle.path).arg("c").spawn();
        wait_until("running", || {
            s.path("states/c/state.json").exists() && bundle.status("c") == "running"
        });
        bundle.oci(&["kill", "c", "9"]).run().code(0);
        run.wait().code(137);
        bundle.assert_gone();
    });
}

#[test]
fn other_commands_change_a_container_of_run() {
    sandbox(|s| {
        let bundle = Bundle::new(s, "exec sleep 1000");
        let run: Running = bundle.oci(&["run", "-b"]).arg(&bundle.path).arg("c").spawn();
        wait_until("running", || {
            s.path("states/c/state.json").exists() && bundle.status("c") == "running"
        });
        for (command, status) in [(&["pause", "c"][..], "paused"), (&["resume", "c"], "running")] {
            bundle.oci(command).run().code(0).stderr("");
            assert_eq!(bundle.status("c"), status);
        }
        bundle.oci(&["delete", "-f", "c"]).run().code(0).stderr("");
        run.wait().code(137).stderr("");
        bundle.assert_gone();
    });
}

#[test]
fn a_program_that_cannot_be_executed_is_an_error_of_create() {
    sandbox(|s| {
        let mut bundle = Bundle::new(s, "true");
        for (program, message) in [
            ("nope", "exec: \"nope\": executable file not found in $PATH"),
            ("/nope", "exec: \"/nope\": no such file or directory"),
            ("/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
        ] {
            bundle.change(|config| config["process"]["args"] = json!([program]));
            bundle.create().code(1);
            assert!(
                bundle.out().contains(&format!("jc-oci: error: {message}\n")),
                "{}",
                bundle.out()
            );
            bundle.assert_gone();
        }
    });
}

#[test]
fn later_changes_of_the_configuration_count_for_nothing() {
    sandbox(|s| {
        let bundle = Bundle::new(s, "echo first");
        bundle.create().code(0);
        fs::remove_file(bundle.path.join("config.json")).unwrap();
        bundle.oci(&["start", "c"]).run().code(0);
        bundle.wait_for("stopped");
        assert_eq!(bundle.out(), "first\n");
        bundle.oci(&["delete", "c"]).run().code(0);
        bundle.assert_gone();
    });
}

#[test]
fn delete_with_force_ends_a_container_in_each_part_of_its_life() {
    sandbox(|s| {
        let bundle = Bundle::new(s, "sleep 1000");
        bundle.create().code(0);
        bundle.oci(&["delete", "-f", "c"]).run().code(0).stderr("");
        bundle.assert_gone();
        bundle.start();
        bundle.oci(&["delete", "-f", "c"]).run().code(0).stderr("");
        bundle.assert_gone();
        bundle.start();
        bundle.oci(&["pause", "c"]).run().code(0);
        assert_eq!(bundle.status("c"), "paused");
        bundle.oci(&["delete", "-f", "c"]).run().code(0).stderr("");
        bundle.assert_gone();
        s.wait_for_no_process();
    });
}

#[test]
fn a_paused_container_may_be_one_that_has_not_started_and_ends_by_a_kill() {
    sandbox(|s| {
        let bundle = Bundle::new(s, "sleep 1000 & sleep 1000");
        bundle.create().code(0);
        bundle.oci(&["pause", "c"]).run().code(0);
        assert_eq!(bundle.status("c"), "paused");
        let start = bundle.oci(&["start", "c"]).run().code(1);
        start.fails_as("jc-oci", "cannot start a container in the paused state");
        bundle.oci(&["resume", "c"]).run().code(0);
        assert_eq!(bundle.status("c"), "created");
        for kill in [&["kill", "c", "KILL"][..], &["kill", "--all", "c", "KILL"]] {
            bundle.oci(&["start", "c"]).run().code(0);
            bundle.oci(&["pause", "c"]).run().code(0);
            bundle.oci(kill).run().code(0);
            bundle.wait_for("stopped");
            bundle.oci(&["delete", "c"]).run().code(0).stderr("");
            bundle.create().code(0);
        }
        bundle.oci(&["delete", "-f", "c"]).run().code(0);
        bundle.assert_gone();
        s.wait_for_no_process();
    });
}

#[test]
fn a_kill_of_all_reaches_a_program_outside_of_its_group() {
    sandbox(|s| {
        let bundle = Bundle::new(s, "sleep 1000");
        bundle.start();
        for group in bundle.groups() {
            let outside = group.parent().unwrap().join("cgroup.procs");
            fs::write(outside, bundle.pid().to_string()).unwrap();
            fs::remove_dir(group).unwrap();
        }
        bundle.oci(&["kill", "c", "0"]).run().code(0);
        assert_eq!(bundle.status("c"), "running");
        bundle.oci(&["kill", "--all", "c", "KILL"]).run().code(0);
        bundle.wait_for("stopped");
        bundle.oci(&["delete", "c"]).run().code(0).stderr("");
        bundle.assert_gone();
    });
}

#[test]
fn a_control_group_with_other_processes_is_left_alone() {
    sandbox(|s| {
        let mut bundle = Bundle::new(s, "sleep 1000");
        bundle.start();
        let first = bundle.pid();
        let create = bundle.oci(&["create", "-b"]).arg(&bundle.path).arg("d").run();
        create.code(1).fails_as("jc-oci", "container's cgroup is not empty: 1 process(es) found");
        bundle.change(|config| config["linux"]["cgroupsPath"] = json!("/"));
        let create = bundle.oci(&["create", "-b"]).arg(&bundle.path).arg("d").run();
        create
            .code(1)
            .fails_as("jc-oci", "linux.cgroupsPath \"/\": holds the processes of the host");
        bundle.change(|config| config["linux"]["cgroupsPath"] = json!("/a/../b"));
        let create = bundle.oci(&["create", "-b"]).arg(&bundle.path).arg("d").run();
        create.code(1).fails_as("jc-oci", "linux.cgroupsPath \"/a/../b\": has \"..\"");
        assert!(fs::exists(format!("/proc/{first}/stat")).unwrap());
        assert_eq!(bundle.status("c"), "running");
        bundle.oci(&["delete", "-f", "c"]).run().code(0);
    });
}

/// Kills `create` at many instants. The chain ends with it, or `delete -f` ends the chain.
#[test]
fn a_kill_of_create_leaves_nothing_after_delete() {
    sandbox(|s| {
        let bundle = Bundle::new(s, "sleep 1000");
        for round in 0..20 * volume() {
            let line = format!(
                "jc-oci --root states create -b bundle c <&- >/dev/null 2>&1 & create=$!\n\
                sleep 0.{:03}; kill -9 $create; wait $create",
                round % 20
            );
            s.sh(&line).run();
            bundle.oci(&["delete", "-f", "c"]).run().code(0).stderr("");
            s.wait_for_no_process();
            assert_eq!(bundle.groups(), [] as [PathBuf; 0], "round {round}");
        }
        bundle.start();
        bundle.oci(&["delete", "-f", "c"]).run().code(0);
        bundle.assert_gone();
    });
}

#[test]
fn a_run_that_gets_too_few_descriptors_leaves_nothing() {
    sandbox(|s| {
        let bundle = Bundle::new(s, "true");
        let group = bundle.config["linux"]["cgroupsPath"].as_str().unwrap();
        let (mut failed, mut succeeded) = (0, 0);
        for most in 4..60 {
            let line = format!("ulimit -Sn {most}; exec jc-oci --root states run -b bundle c");
            let ran = s.sh(&line).run();
            match ran.status().code() {
                Some(0) => succeeded += 1,
                Some(1) => failed += 1,
                _ => panic!("{most}: {ran}"),
            }
            let left = "ls -A states 2>/dev/null; find /sys/fs/cgroup -path \"*$0\"";
            s.cmd("sh").args(["-c", left, group]).run().stdout("");
        }
        assert!(failed > 5 && succeeded > 5, "{failed} {succeeded}");
    });
}

/// A group that is made late: a wrapper of jc-cgroup sleeps while `create` is killed and `delete -f` begins.
#[test]
fn delete_waits_for_the_chain_of_a_killed_create() {
    sandbox(|s| {
        let bundle = Bundle::new(s, "sleep 1000");
        // A program runs the tools beside it.
        fs::create_dir(s.path("late")).unwrap();
        for name in ["jc-oci", "jc-unshare", "jc-rootfs"] {
            fs::copy(s.bin(name), s.path("late").join(name)).unwrap();
        }
        let wrapper = s.path("late/jc-cgroup");
        let real = s.bin("jc-cgroup").display().to_string();
        fs::write(&wrapper, format!("#!/bin/sh\n: >begun\nsleep 0.5\nexec {real} \"$@\"\n"))
            .unwrap();
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
        let late = s.cmd(s.path("late/jc-oci")).arg("--root").arg(s.path("states"));
        let create = late.args(["create", "-b"]).arg(&bundle.path).arg("c").spawn();
        wait_until("jc-cgroup", || s.path("begun").exists());
        create.signal(Signal::KILL);
        bundle.oci(&["delete", "-f", "c"]).run().code(0).stderr("");
        assert_eq!(bundle.groups(), [] as [PathBuf; 0]);
        s.wait_for_no_process();
        bundle.assert_gone();
        create.wait();
    });
}

/// A `create` that finds the directory of another one destroys its container only if it does not look for a record.
#[test]
fn creates_beside_deletes_are_those_of_one_container() {
    sandbox(|s| {
        let bundle = Bundle::new(s, "sleep 1000");
        let spawn = |count: u32, command: &str| {
            let (oci, count) = ("jc-oci --root states", count * volume());
            let line = format!("for n in $(seq {count}); do {oci} {command} c; done");
            s.sh(&format!("{{ {line}; }} </dev/null >/dev/null 2>>err")).spawn()
        };
        let create = "create -b bundle";
        let all = [(150, create), (150, create), (300, "delete -f"), (300, "delete -f")];
        let all = all.map(|(count, command)| spawn(count, command));
        for running in all {
            running.wait(); // with the status of the last command
        }
        let errors = fs::read_to_string(s.path("err")).unwrap();
        let mut errors = errors.lines();
        let other = errors.find(|line| *line != "jc-oci: error: container with id exists: c");
        assert_eq!(other, None);
        bundle.oci(&["delete", "-f", "c"]).run().code(0).stderr("");
        bundle.assert_gone();
    });
}

#[test]
fn many_starts_at_once_have_one_success() {
    sandbox(|s| {
        let bundle = Bundle::new(s, "echo once; sleep 1000");
        bundle.create().code(0);
        let starts: Vec<Running> = (0..8).map(|_| bundle.oci(&["start", "c"]).spawn()).collect();
        let codes = starts.into_iter().map(|start| start.wait().status().code());
        assert_eq!(codes.filter(|code| *code == Some(0)).count(), 1);
        wait_until("output", || bundle.out() == "once\n");
        let deletes: Vec<Running> =
            (0..8).map(|_| bundle.oci(&["delete", "-f", "c"]).spawn()).collect();
        deletes.into_iter().for_each(|delete| drop(delete.wait().code(0)));
        bundle.assert_gone();
    });
}
