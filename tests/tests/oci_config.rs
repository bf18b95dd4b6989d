//! Members of config.json, seen from inside the container.

#![cfg(target_os = "linux")]

mod oci_support;

use std::fs;
use std::os::unix::net::UnixListener;

use jc_tests::descriptors::receive;
use jc_tests::{sandbox, wait_until};
use oci_support::Bundle;
use serde_json::{Value, json};

/// A script, a change of the configuration, and the output of the script.
type Case = (&'static str, fn(&mut Value), &'static str);

#[test]
fn the_program_has_the_attributes_of_the_configuration() {
    sandbox(|s| {
        let mut bundle = Bundle::new(s, "");
        let config = bundle.config.clone();
        let cases: [Case; 11] = [
            (
                "id -u; id -g; id -G",
                |config| {
                    config["process"]["user"] =
                        json!({"uid": 7, "gid": 8, "additionalGids": [9, 10]});
                },
                "7\n8\n8 9 10\n",
            ),
            ("umask", |config| config["process"]["user"]["umask"] = json!(0o27), "0027\n"),
            ("pwd", |config| config["process"]["cwd"] = json!("/tmp"), "/tmp\n"),
            (
                "echo $A $HOME",
                |config| {
                    config["process"]["env"] = json!(["A=b c", "PATH=/bin"]);
                },
                "b c /root\n",
            ),
            (
                "ulimit -n; ulimit -Hn",
                |config| {
                    let limit = json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]);
                    config["process"]["rlimits"] = limit;
                },
                "100\n200\n",
            ),
            (
                "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status",
                |config| {
                    config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW"});
                },
                "NoNewPrivs:\t1\nSeccomp:\t2\n",
            ),
            (
                "grep -E 'Cap(Inh|Prm|Bnd|Amb)' /proc/self/status",
                |config| {
                    config["process"]["user"]["uid"] = json!(5);
                    let set = json!(["CAP_KILL"]);
                    config["process"]["capabilities"] = json!({
                        "bounding": ["CAP_KILL", "CAP_CHOWN"], "effective": set, "permitted": set,
                        "inheritable": set, "ambient": set,
                    });
                },
                "CapInh:\t0000000000000020\nCapPrm:\t0000000000000020\nCapBnd:\t0000000000000021\n\
                CapAmb:\t0000000000000020\n",
            ),
            (
                "cat /proc/self/oom_score_adj",
                |config| config["process"]["oomScoreAdj"] = json!(300),
                "300\n",
            ),
            ("hostname", |config| config["hostname"] = json!("inner"), "inner\n"),
            (
                "cat /proc/sys/kernel/domainname",
                |config| config["domainname"] = json!("domain"),
                "domain\n",
            ),
            (
                "cat /proc/sys/kernel/msgmax",
                |config| {
                    config["linux"]["sysctl"] = json!({"kernel.msgmax": "4321"});
                },
                "4321\n",
            ),
        ];
        for (script, change, expected) in cases {
            bundle.config = config.clone();
            bundle.config["process"]["args"] = json!(["sh", "-c", script]);
            bundle.change(change);
            bundle.run().code(0).stderr("").stdout(expected);
            bundle.assert_gone();
        }
    });
}

#[test]
fn mounts_and_paths_are_those_of_the_configuration() {
    sandbox(|s| {
        let script = "cat /data/file; touch /data/x 2>&1; cat /masked; ls /hidden; touch /ro/x 2>&1; \
                      test -c /dev/null && test -c /dev/made && echo devices; touch /new 2>&1; ls /fresh";
        let mut bundle = Bundle::new(s, script);
        let root = bundle.path.join("rootfs");
        fs::create_dir(s.path("data")).unwrap();
        fs::write(s.path("data/file"), "content\n").unwrap();
        for dir in ["hidden", "ro"] {
            fs::create_dir(root.join(dir)).unwrap();
        }
        fs::write(root.join("hidden/secret"), "").unwrap();
        fs::write(root.join("masked"), "secret").unwrap();
        let source = s.path("data");
        bundle.change(|config| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.push(json!({"destination": "/data", "source": source, "options": ["rbind", "ro"]}));
            mounts.push(json!({"destination": "/fresh", "type": "tmpfs", "source": "tmpfs"}));
            config["linux"]["maskedPaths"] = json!(["/masked", "/hidden", "/absent"]);
            config["linux"]["readonlyPaths"] = json!(["/ro", "/absent"]);
            config["linux"]["devices"] =
                json!([{"type": "c", "path": "/dev/made", "major": 1, "minor": 3, "fileMode": 438}]);
        });
        let ran = bundle.run();
        let denied = |path: &str| format!("touch: {path}: Read-only file system\n");
        let expected =
            ["content\n", &denied("/data/x"), &denied("/ro/x"), "devices\n", &denied("/new")];
        ran.stdout(&expected.concat()).stderr("").code(0);
        bundle.assert_gone();
    });
}

#[test]
fn limits_are_in_the_control_group_and_change_with_update() {
    sandbox(|s| {
        let mut bundle = Bundle::new(s, "sleep 1000");
        bundle.change(|config| config["linux"]["resources"]["pids"] = json!({"limit": 20}));
        bundle.start();
        let limit = |bundle: &Bundle<'_>| {
            let files = bundle.groups().into_iter().map(|group| group.join("pids.max"));
            files.filter_map(|file| fs::read_to_string(file).ok()).find(|text| text != "max\n")
        };
        assert_eq!(limit(&bundle).as_deref(), Some("20\n"));
        bundle.oci(&["update", "--pids-limit", "30", "c"]).run().code(0).stderr("");
        assert_eq!(limit(&bundle).as_deref(), Some("30\n"));
        let resources = r#"{"pids":{"limit":40}}"#;
        bundle.oci(&["update", "-r", "-", "c"]).input(resources).run().code(0).stderr("");
        assert_eq!(limit(&bundle).as_deref(), Some("40\n"));
        let pids = bundle.oci(&["ps", "--format=json", "c"]).run().code(0).out();
        assert_eq!(pids, format!("[{}]\n", bundle.pid()));
        let event = bundle.oci(&["events", "--stats", "c"]).run().code(0).out();
        let event: Value = serde_json::from_str(&event).unwrap();
        assert_eq!(event["type"], "stats");
        assert_eq!(event["data"]["pids"], json!({"current": 1, "limit": 40}));
        // Without a limit the number is the largest.
        assert_eq!(event["data"]["memory"]["usage"]["limit"], json!(u64::MAX));
        bundle.oci(&["delete", "-f", "c"]).run().code(0);
        bundle.assert_gone();
    });
}

#[test]
fn exec_joins_the_container_with_its_own_program() {
    sandbox(|s| {
        let bundle = Bundle::new(s, "sleep 1000");
        bundle.start();
        let exec = |words: &[&str]| bundle.oci(&[&["exec"], words].concat()).run();
        exec(&["c", "sh", "-c", "hostname; readlink /proc/1/exe; exit 9"])
            .code(9)
            .stdout("jc-oci\n/bin/busybox\n");
        exec(&[
            "--user",
            "5:6",
            "--cwd=/tmp",
            "-e",
            "A=b",
            "c",
            "sh",
            "-c",
            "id -u; id -g; pwd; echo $A",
        ])
        .code(0)
        .stdout("5\n6\n/tmp\nb\n");
        for (program, text) in [
            ("nope", "\"nope\": executable file not found in $PATH"),
            ("/nope", "\"/nope\": no such file or directory"),
            ("/bin", "\"/bin\": permission denied"),
        ] {
            let ran = exec(&["c", program]).code(255).stdout("");
            assert!(ran.err().ends_with(&format!("jc-oci: error: exec: {text}\n")), "{ran}");
        }
        exec(&["--cap", "CAP_NONE", "c", "true"]).code(255).fails_as("jc-oci", "--cap CAP_NONE");
        let process = json!({"args": ["sh", "-c", "echo $B; id -u"], "cwd": "/", "env": ["B=c", "PATH=/bin"], "user": {"uid": 3, "gid": 4}});
        fs::write(s.path("process.json"), process.to_string()).unwrap();
        exec(&["--process", "process.json", "c"]).code(0).stdout("c\n3\n");
        bundle.oci(&["pause", "c"]).run().code(0);
        exec(&["c", "true"]).code(255).fails_as("jc-oci", "cannot exec in a paused container");
        bundle.oci(&["resume", "c"]).run().code(0);
        bundle.oci(&["kill", "--all", "c", "KILL"]).run().code(0);
        bundle.wait_for("stopped");
        exec(&["c", "true"]).code(255).fails_as("jc-oci", "cannot exec in a stopped container");
        bundle.oci(&["delete", "c"]).run().code(0);
        bundle.assert_gone();
    });
}

#[test]
fn a_user_opens_its_standard_streams_again() {
    sandbox(|s| {
        let script = "echo out >/dev/stdout; echo err >/dev/stderr; stat -Lc %u:%g /dev/stdout";
        let mut bundle = Bundle::new(s, script);
        bundle.change(|config| config["process"]["user"] = json!({"uid": 7, "gid": 8}));
        bundle.run().code(0).stdout("out\n7:8\n").stderr("err\n");
        // A device is that of all, and a closed stream is no error.
        let owner = "stat -c %u:%g /dev/null >owner; jc-oci --root states run -b bundle c </dev/null >/dev/null 2>/dev/null; \
                     stat -c %u:%g /dev/null | cmp - owner && jc-oci --root states run -b bundle c <&- >file 2>&-; stat -c %u:%g file";
        s.sh(owner).run().stdout("7:8\n");
        bundle.assert_gone();
    });
}

#[test]
fn an_agent_decides_about_system_calls_of_the_container() {
    sandbox(|s| {
        let mut bundle = Bundle::new(s, "mkdir /tmp/new");
        let listener = UnixListener::bind(s.path("agent")).unwrap();
        for names in [json!(["mkdir", "mkdirat"]), json!([])] {
            let path = s.path("agent");
            bundle.change(|config| {
                let rules = json!([{"names": names, "action": "SCMP_ACT_NOTIFY"}]);
                config["root"]["readonly"] = json!(false);
                config["annotations"] = json!({"a": "b"});
                config["linux"]["seccomp"] = json!({
                    "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": "data",
                    "syscalls": if names == json!([]) { json!([]) } else { rules },
                });
            });
            let run = bundle.oci(&["run", "-b"]).arg(&bundle.path).arg("c").spawn();
            let (stream, _) = listener.accept().unwrap();
            let (text, fd) = receive(&stream);
            let message: Value = serde_json::from_slice(&text).unwrap();
            let state = &message["state"];
            assert_eq!(
                (&message["metadata"], &message["fds"]),
                (&json!("data"), &json!(["seccompFd"]))
            );
            assert_eq!((&state["id"], &state["status"]), (&json!("c"), &json!("creating")));
            assert_eq!(
                (&state["bundle"], &state["annotations"]["a"]),
                (&json!(bundle.path), &json!("b"))
            );
            assert!(message["pid"].as_u64().unwrap() > 1 && message["pid"] == state["pid"]);
            // Without its listener a call fails (seccomp_unotify(2)).
            drop(fd);
            let ran = run.wait();
            if names == json!([]) {
                ran.code(0).stderr("");
                fs::remove_dir(bundle.path.join("rootfs/tmp/new")).unwrap();
            } else {
                ran.code(1)
                    .stderr("mkdir: can't create directory '/tmp/new': Function not implemented\n");
            }
            bundle.assert_gone();
        }
        fs::remove_file(s.path("agent")).unwrap();
        let ran = bundle.run().code(1);
        assert!(ran.err().contains("agent: No such file or directory"), "{ran}");
        bundle.assert_gone();
    });
}

/// The agent of `exec` gets the PID of the new program and the state of the container.
#[test]
fn an_agent_decides_about_system_calls_of_a_program_that_joins() {
    sandbox(|s| {
        let mut bundle = Bundle::new(s, "sleep 1000");
        let path = s.path("agent");
        let rules = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]);
        for (has_no_new_privileges, has_pid_namespace) in
            [(true, true), (false, true), (true, false), (false, false)]
        {
            bundle.change(|config| {
                config["process"]["noNewPrivileges"] = json!(has_no_new_privileges);
                config["linux"]["seccomp"] = json!({
                    "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "syscalls": rules,
                });
                let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
                namespaces.retain(|namespace| has_pid_namespace || namespace["type"] != "pid");
            });
            let listener = UnixListener::bind(&path).unwrap();
            bundle.start();
            let _first = receive(&listener.accept().unwrap().0);
            let script = "echo $$; mkdir /tmp/new";
            let exec = bundle.oci(&["exec", "--pid-file"]).arg(s.path("pid-of-exec"));
            let exec = exec.args(["c", "sh", "-c", script]).spawn();
            let (text, fd) = receive(&listener.accept().unwrap().0);
            let message: Value = serde_json::from_slice(&text).unwrap();
            let state = &message["state"];
            assert_eq!((&state["id"], &state["status"]), (&json!("c"), &json!("running")));
            wait_until("the PID file", || s.path("pid-of-exec").exists());
            let (pid, first) = (&message["pid"], &state["pid"]);
            assert_eq!(pid.to_string(), fs::read_to_string(s.path("pid-of-exec")).unwrap());
            assert!(first.is_u64() && first != pid, "{message}");
            drop(fd);
            let refused = "mkdir: can't create directory '/tmp/new': Function not implemented\n";
            exec.wait().code(1).stderr(refused);
            bundle.oci(&["delete", "-f", "c"]).run().code(0);
            fs::remove_file(&path).unwrap();
            fs::remove_file(s.path("pid-of-exec")).unwrap();
        }
        bundle.assert_gone();
    });
}

#[test]
fn a_program_whose_pid_cannot_be_written_does_not_go_on() {
    sandbox(|s| {
        let mut bundle = Bundle::new(s, "sleep 1000");
        // Without a PID namespace no process waits for a reaper of the other.
        bundle.change(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != "pid");
        });
        bundle.start();
        let words = ["exec", "-d", "--pid-file", "/none/pid", "c", "sleep", "1000"];
        bundle.oci(&words).run().code(255).fails_as("jc-oci", "create /none/pid");
        wait_until("the end of the program", || {
            let pids = bundle.oci(&["ps", "--format=json", "c"]).run().code(0).out();
            pids == format!("[{}]\n", bundle.pid())
        });
        bundle.oci(&["delete", "-f", "c"]).run().code(0);
        bundle.assert_gone();
    });
}

#[test]
fn a_program_waits_in_a_paused_container_that_it_may_join() {
    sandbox(|s| {
        let bundle = Bundle::new(s, "sleep 1000");
        bundle.start();
        bundle.oci(&["pause", "c"]).run().code(0);
        let exec = bundle.oci(&["exec", "--ignore-paused", "c", "echo", "on"]).spawn();
        wait_until("a second process", || {
            let pids = bundle.oci(&["ps", "--format=json", "c"]).run().code(0).out();
            pids.matches(',').count() > 0
        });
        assert_eq!(exec.stdout_so_far(), "");
        bundle.oci(&["resume", "c"]).run().code(0);
        exec.wait().code(0).stdout("on\n");
        bundle.oci(&["delete", "-f", "c"]).run().code(0);
        bundle.assert_gone();
    });
}

#[test]
fn a_missing_directory_is_made_for_the_program_and_not_for_exec() {
    sandbox(|s| {
        let mut bundle = Bundle::new(s, "pwd; sleep 1000");
        bundle.change(|config| {
            config["root"]["readonly"] = json!(false);
            config["process"]["cwd"] = json!("/made/here");
        });
        bundle.start();
        wait_until("output", || bundle.out() == "/made/here\n");
        let exec = bundle.oci(&["exec", "--cwd", "/none", "c", "true"]).run();
        let exec = exec.code(255);
        assert!(exec.err().contains("/none: No such file or directory"), "{exec}");
        assert!(!bundle.path.join("rootfs/none").exists());
        bundle.oci(&["delete", "-f", "c"]).run().code(0);
        bundle.assert_gone();
    });
}
