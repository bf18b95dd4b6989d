//! Members of config.json, seen from inside the container.

#![cfg(target_os = "linux")]

mod oci_support;

use std::fs;

use jc_tests::sandbox;
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
        assert_eq!(
            (&event["type"], &event["data"]["pids"]["current"]),
            (&json!("stats"), &json!(1))
        );
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
        exec(&["c", "nope"]).code(255).stdout("");
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
