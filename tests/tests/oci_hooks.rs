//! Hooks of a bundle: order, state, namespaces, time-outs and failures.

#![cfg(target_os = "linux")]

mod oci_support;

use std::fs;
use std::path::Path;

use jc_tests::sandbox;
use oci_support::Bundle;
use serde_json::{Value, json};

/// A hook that appends its name, the pid and status of its state, and its hostname to a file.
fn hook(name: &str, file: &Path) -> Value {
    let script = format!(
        "state=$(cat); status=${{state##*\\\"status\\\":\\\"}}; \
         echo {name} ${{status%%\\\"*}} $(hostname) $A >>{}",
        file.display()
    );
    json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["A=b", "PATH=/bin:/usr/bin"], "timeout": 10}])
}

#[test]
fn hooks_run_in_order_in_the_namespaces_of_the_specification() {
    sandbox(|s| {
        let mut bundle = Bundle::new(s, "hostname >>/tmp/log");
        let (inside, host) = (Path::new("/tmp/log"), s.hostname().to_owned());
        let outside = bundle.path.join("rootfs/tmp/log");
        bundle.change(|config| {
            config["root"]["readonly"] = json!(false);
            config["hostname"] = json!("inner");
            config["hooks"] = json!({
                "prestart": hook("prestart", &outside),
                "createRuntime": hook("createRuntime", &outside),
                "createContainer": hook("createContainer", &outside),
                "startContainer": hook("startContainer", inside),
                "poststart": hook("poststart", &outside),
                "poststop": hook("poststop", &outside),
            });
        });
        bundle.run().code(0).stderr("");
        let log = fs::read_to_string(&outside).unwrap();
        let mut lines: Vec<&str> = log.lines().collect();
        // The program and its poststart hooks run at the same time.
        lines[4..6].sort_unstable();
        assert_eq!(
            lines,
            [
                format!("prestart creating {host} b"),
                format!("createRuntime creating {host} b"),
                "createContainer creating inner b".to_owned(),
                "startContainer created inner b".to_owned(),
                "inner".to_owned(),
                format!("poststart running {host} b"),
                format!("poststop stopped {host} b"),
            ]
        );
        bundle.assert_gone();
    });
}

#[test]
fn a_hook_that_fails_or_hangs_ends_the_creation() {
    sandbox(|s| {
        let mut bundle = Bundle::new(s, "echo ran");
        for kind in ["prestart", "createRuntime", "createContainer", "startContainer"] {
            for (script, timeout) in [("exit 5", json!(null)), ("sleep 1000", json!(1))] {
                bundle.change(|config| {
                    config["hooks"] = json!({
                        kind: [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"], "timeout": timeout}],
                    });
                });
                let ran = bundle.run().code(1).stdout("");
                assert!(ran.err().contains("hook"), "{kind} {script}\n{ran}");
                bundle.assert_gone();
            }
        }
        s.wait_for_no_process();
    });
}

#[test]
fn a_failure_of_a_hook_after_the_end_is_a_warning() {
    sandbox(|s| {
        let mut bundle = Bundle::new(s, "exit 4");
        bundle.change(|config| {
            config["hooks"] = json!({"poststop": [{"path": "/bin/false"}, {"path": "/none"}]})
        });
        let first = "jc-oci: warning: error running poststop hook /bin/false: exit status: 1";
        let second = "jc-oci: warning: exec /none: No such file or directory";
        bundle.run().code(4).stderr(&format!("{first}\n{second}\n"));
        bundle.assert_gone();
    });
}

#[test]
fn a_failure_of_a_hook_after_the_start_ends_the_container() {
    sandbox(|s| {
        let mut bundle = Bundle::new(s, "sleep 1000");
        let outside = bundle.path.join("rootfs/tmp/log");
        bundle.change(|config| {
            config["hooks"] = json!({
                "poststart": [{"path": "/bin/false"}, {"path": "/bin/touch", "args": ["touch", "/srv/more"]}],
                "poststop": hook("poststop", &outside),
            })
        });
        let error = "error running poststart hook /bin/false: exit status: 1";
        bundle.create().code(0);
        bundle.oci(&["start", "c"]).run().code(1).fails_as("jc-oci", error);
        bundle.assert_gone();
        bundle.run().code(1).fails_as("jc-oci", error);
        bundle.assert_gone();
        assert!(!s.path("more").exists());
        assert_eq!(fs::read_to_string(outside).unwrap().matches("poststop stopped").count(), 2);
        s.wait_for_no_process();
    });
}

#[test]
fn a_hook_without_variables_has_those_of_the_runtime() {
    sandbox(|s| {
        let mut bundle = Bundle::new(s, "true");
        let mut of = |env: Value| {
            bundle.change(|config| {
                let args = ["sh", "-c", "echo \"$MARK\" >/srv/mark"];
                config["hooks"] =
                    json!({"createRuntime": [{"path": "/bin/sh", "args": args, "env": env}]});
            });
            let run = bundle.oci(&["run", "-b"]).arg(&bundle.path).arg("c").env("MARK", "runtime");
            run.run().code(0).stderr("");
            fs::read_to_string(s.path("mark")).unwrap()
        };
        assert_eq!(of(json!(null)), "runtime\n");
        assert_eq!(of(json!([])), "\n");
        assert_eq!(of(json!(["MARK=own"])), "own\n");
    });
}
