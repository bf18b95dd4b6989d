//! Bundles that are hostile or broken: configurations without end, words with control characters, and roots whose
//! links lead outside.

#![cfg(target_os = "linux")]

mod oci_support;

use std::fs;
use std::os::unix::fs::symlink;

use jc_tests::{Ran, sandbox};
use oci_support::Bundle;
use serde_json::{Value, json};

/// Fails without a trace: an error that is one line and perhaps a hint for each program, and no state or group.
fn fails(bundle: &Bundle<'_>, what: &str) -> Ran {
    let ran = bundle.run().code(1).stdout("");
    let err = ran.err();
    assert!(err.lines().all(|line| line.starts_with("jc-")), "{what}: {err}");
    assert!(!err.contains("panicked") && err.lines().count() <= 4, "{what}: {err}");
    bundle.assert_gone();
    ran
}

#[test]
fn a_configuration_has_a_bound_of_size_and_depth() {
    sandbox(|s| {
        let bundle = Bundle::new(s, "true");
        bundle.run().code(0);
        let file = bundle.path.join("config.json");
        let good = fs::read_to_string(&file).unwrap();
        let nested = |open: &str, close: &str| {
            let text = open.repeat(200_000) + &close.repeat(200_000);
            good.replacen('{', &format!("{{\"x\":{text},"), 1)
        };
        let null = nested("{\"a\":", "}").replace(":}", ":null}");
        for (what, text) in [
            ("lists", nested("[", "]")),
            ("objects", null),
            ("size", good.replacen('{', &format!("{{\"x\":\"{}\",", "y".repeat(17 << 20)), 1)),
            ("empty", String::new()),
            ("half", good[..good.len() / 2].to_owned()),
            ("more", good.clone() + "{}"),
            ("list", format!("[{good}]")),
        ] {
            fs::write(&file, text).unwrap();
            fails(&bundle, what);
        }
        fs::write(&file, good.as_bytes().iter().map(|b| b | 0x80).collect::<Vec<u8>>()).unwrap();
        fails(&bundle, "bytes");
        for make in ["mkdir", "ln -s /dev/zero", "ln -s config.json", "mkfifo", "mknod"] {
            let more = if make == "mknod" { " c 1 3" } else { "" };
            let line = format!("rm -rf bundle/config.json; {make} bundle/config.json{more}");
            s.sh(&line).run().code(0);
            fails(&bundle, make);
        }
    });
}

/// The places of all strings of a configuration, as pointers of JSON.
fn strings(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::String(_) => found.push(at.to_owned()),
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(n, item)| strings(item, &format!("{at}/{n}"), found));
        }
        Value::Object(members) => members.iter().for_each(|(name, item)| {
            strings(item, &format!("{at}/{}", name.replace('/', "~1")), found);
        }),
        _ => {}
    }
}

#[test]
fn every_word_may_have_any_character() {
    sandbox(|s| {
        let mut bundle = Bundle::new(s, "true");
        bundle.change(|config| {
            config["annotations"] = json!({"a": "b"});
            config["domainname"] = json!("domain");
            config["linux"]["sysctl"] = json!({"kernel.msgmax": "4321"});
            config["linux"]["devices"] = json!([{"type": "c", "path": "/dev/made", "major": 1, "minor": 3}]);
            config["linux"]["maskedPaths"] = json!(["/tmp"]);
            config["linux"]["readonlyPaths"] = json!(["/etc"]);
            config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["reboot"], "action": "SCMP_ACT_ERRNO"}]});
            config["hooks"] = json!({"createRuntime": [{"path": "/bin/true", "args": ["true"], "env": ["A=b"]}]});
        });
        bundle.run().code(0).stderr("");
        let config = bundle.config.clone();
        let mut places = Vec::new();
        strings(&config, "", &mut places);
        assert!(places.len() > 60, "{}", places.len());
        for place in places {
            for word in [
                "\0",
                "a\0b",
                "\n",
                "a\n--cap-add ALL",
                "--privileged",
                "=",
                "\u{202e}\u{1b}[31m",
                "\u{1f4a3}",
            ] {
                bundle.config = config.clone();
                bundle.change(|config| *config.pointer_mut(&place).unwrap() = json!(word));
                // A cgroup path may name another group, which the test would have to find.
                if place == "/linux/cgroupsPath" {
                    continue;
                }
                let ran = bundle.run();
                let err = ran.err();
                assert!(!err.contains("panicked"), "{place} {word:?}: {err}");
                // A shell shows its own words as they are.
                let is_shown = place.starts_with("/process/args/");
                assert!(is_shown || !err.contains('\u{1b}'), "{place} {word:?}: {err}");
                assert!(err.lines().count() <= 4, "{place} {word:?}: {err}");
                bundle.assert_gone();
            }
        }
        s.wait_for_no_process();
    });
}

#[test]
fn links_of_the_root_lead_nowhere_outside() {
    sandbox(|s| {
        let mut bundle = Bundle::new(s, "true");
        let root = bundle.path.join("rootfs");
        let outside = s.path("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "kept").unwrap();
        symlink("../../../../../../srv/outside", root.join("up")).unwrap();
        symlink("/srv/outside", root.join("absolute")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let config = bundle.config.clone();
        let list = || {
            s.sh("find outside | sort; stat -c %a%u outside/file; cat outside/file")
                .run()
                .code(0)
                .out()
        };
        let before = list();
        for path in [
            "/up",
            "/absolute",
            "/up/deep/er",
            "/absolute/file",
            "/../../srv/outside",
            "/loop",
            "/proc/self/root/srv/outside",
        ] {
            for (pointer, value) in [
                ("/mounts/-", json!({"destination": path, "type": "tmpfs", "source": "tmpfs"})),
                (
                    "/mounts/-",
                    json!({"destination": path, "source": "/etc/passwd", "options": ["bind"]}),
                ),
                (
                    "/linux/devices",
                    json!([{"type": "c", "path": format!("{path}/null"), "major": 1, "minor": 3}]),
                ),
                ("/linux/maskedPaths", json!([path])),
                ("/linux/readonlyPaths", json!([path])),
                ("/process/cwd", json!(path)),
            ] {
                bundle.config = config.clone();
                bundle.change(|config| {
                    config["root"]["readonly"] = json!(false);
                    match pointer.strip_suffix("/-") {
                        Some(list) => {
                            config.pointer_mut(list).unwrap().as_array_mut().unwrap().push(value);
                        }
                        None => {
                            let (parent, name) = pointer.rsplit_once('/').unwrap();
                            config.pointer_mut(parent).unwrap()[name] = value;
                        }
                    }
                });
                let ran = bundle.run();
                assert!(!ran.err().contains("panicked"), "{path} {pointer}\n{ran}");
                bundle.assert_gone();
                assert_eq!(list(), before, "{path} {pointer}");
            }
        }
    });
}

#[test]
fn the_files_of_a_root_may_be_of_any_type() {
    sandbox(|s| {
        let bundle = Bundle::new(s, "true");
        for trap in [
            "mkfifo rootfs/etc/passwd",
            "mknod rootfs/etc/passwd c 1 5",
            "ln -s /etc rootfs/etc/passwd",
            "mkdir rootfs/etc/passwd",
            "mkfifo rootfs/etc/group",
        ] {
            s.sh(&format!("cd bundle; rm -rf rootfs/etc/passwd rootfs/etc/group; {trap}"))
                .run()
                .code(0);
            let ran = bundle.run();
            assert!(!ran.err().contains("panicked"), "{trap}\n{ran}");
            bundle.assert_gone();
        }
        for trap in ["mkfifo rootfs", "mknod rootfs c 1 3", "echo >rootfs"] {
            s.sh(&format!("cd bundle; rm -rf rootfs; {trap}")).run().code(0);
            fails(&bundle, trap);
        }
        s.sh("rm bundle/rootfs").run().code(0);
        fails(&bundle, "no root");
    });
}
