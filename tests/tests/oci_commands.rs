//! The command line of jc-oci, its messages, and configurations that it refuses.

#![cfg(target_os = "linux")]

mod oci_support;

use std::fs;

use jc_tests::sandbox;
use oci_support::{Bundle, oci};
use serde_json::{Value, json};

#[test]
fn features_are_a_document_of_the_specification() {
    sandbox(|s| {
        let text = s.jc("jc-oci").arg("features").run().code(0).out();
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["ociVersionMin"], "1.0.0");
        assert_eq!(document["ociVersionMax"], "1.3.0");
        assert_eq!(document["linux"]["netDevices"]["enabled"], true);
        let options = document["mountOptions"].as_array().unwrap();
        for option in ["bind", "rro", "ridmap", "tmpcopyup", "runbindable", "nosymfollow"] {
            assert!(options.contains(&json!(option)), "{option}");
        }
    });
}

#[test]
fn a_line_without_a_command_is_answered_with_the_commands() {
    sandbox(|s| {
        s.jc("jc-oci").run().code(1).stdout("").fails_as("jc-oci", "subcommands: create,");
    });
}

#[test]
fn a_container_that_is_absent_is_named_in_the_words_that_engines_look_for() {
    sandbox(|s| {
        let absent = "container does not exist: nobody";
        for verb in ["state", "start", "kill", "delete", "pause", "resume", "ps", "events"] {
            oci(s, &[verb, "nobody"]).run().code(1).fails_as("jc-oci", absent);
        }
        oci(s, &["exec", "nobody", "true"]).run().code(255).fails_as("jc-oci", absent);
        oci(s, &["delete", "--force", "nobody"]).run().code(0).stderr("");
        oci(s, &["list", "-q"]).run().code(0).stdout("");
        oci(s, &["list", "--format=json"]).run().code(0).stdout("[]\n");
    });
}

#[test]
fn a_state_that_cannot_be_read_hides_no_other_container() {
    sandbox(|s| {
        let bundle = Bundle::new(s, "sleep 1000");
        bundle.create().code(0);
        // A file is no container.
        fs::write(s.path("states/a-file"), "").unwrap();
        bundle.oci(&["list", "-q"]).run().code(0).stdout("c\n");
        fs::create_dir(s.path("states/broken")).unwrap();
        fs::write(s.path("states/broken/state.json"), "{").unwrap();
        let listed = bundle.oci(&["list", "-q"]).run().code(1);
        listed.stdout("c\n").fails_as("jc-oci", "broken/state.json");
        bundle.oci(&["delete", "-f", "c"]).run().code(0);
    });
}

#[test]
fn the_log_has_the_lines_of_runc() {
    sandbox(|s| {
        let log = s.path("log");
        let logged = |format: &str| {
            let words = [&format!("--log={}", log.display()), "--log-format", format, "state", "x"];
            oci(s, &words).run().code(1).stderr("jc-oci: error: container does not exist: x\n");
            let text = fs::read_to_string(&log).unwrap();
            fs::remove_file(&log).unwrap();
            text
        };
        let line: Value = serde_json::from_str(&logged("json")).unwrap();
        assert_eq!(line["level"], "error");
        assert_eq!(line["msg"], "container does not exist: x");
        let text = logged("text");
        assert!(text.ends_with(" level=error msg=\"container does not exist: x\"\n"), "{text}");
    });
}

#[test]
fn a_configuration_that_means_nothing_is_refused_before_anything_is_made() {
    sandbox(|s| {
        let mut bundle = Bundle::new(s, "true");
        let config = bundle.config.clone();
        for (pointer, value, message) in [
            ("/ociVersion", json!("2.0.0"), "ociVersion \"2.0.0\": not a version 1.x.y"),
            ("/process/args", json!([]), "process.args: is empty"),
            ("/process/cwd", json!("tmp"), "process.cwd: not an absolute path"),
            ("/process/env", json!(["A"]), "process.env: \"A\": not NAME=VALUE"),
            (
                "/process/rlimits",
                json!([{"type":"NOFILE","soft":1,"hard":1}]),
                "process.rlimits: unknown type \"NOFILE\"",
            ),
            (
                "/linux/namespaces",
                json!([{"type":"mount"},{"type":"pid"},{"type":"pid"}]),
                "linux.namespaces: pid is listed twice",
            ),
            (
                "/linux/namespaces",
                json!([{"type":"mount"},{"type":"moon"}]),
                "linux.namespaces: unknown type \"moon\"",
            ),
            (
                "/linux/namespaces",
                json!([{"type":"mount"}]),
                "hostname: needs a namespace of type uts",
            ),
            ("/mounts/0/type", json!(null), "mounts: /proc: no type"),
            ("/linux/maskedPaths", json!(5), "parse config.json: invalid type: integer `5`"),
        ] {
            bundle.change(|config| *config.pointer_mut(pointer).unwrap() = value);
            let words = ["create", "-b", bundle.path.to_str().unwrap(), "c"];
            bundle.oci(&words).run().code(1).fails_as("jc-oci", message);
            bundle.config = config.clone();
        }
        bundle.change(|config| config["linux"]["intelRdt"] = json!({}));
        let words = ["create", "-b", bundle.path.to_str().unwrap(), "c"];
        bundle.oci(&words).run().code(1).fails_as("jc-oci", "linux.intelRdt: not supported");
        for (key, kind) in [
            ("kernel.msgmax", "ipc"),
            ("fs/mqueue/msg_max", "ipc"),
            ("net.ipv4.ip_forward", "network"),
        ] {
            bundle.config = config.clone();
            bundle.change(|config| {
                config["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "uts"}]);
                config["linux"]["sysctl"] = json!({key: "1"});
            });
            let message = format!("linux.sysctl {key:?}: needs a namespace of type {kind}");
            bundle.run().code(1).fails_as("jc-oci", &message);
        }
        bundle.config = config.clone();
        bundle.change(|config| {
            config["domainname"] = json!("d");
            config["linux"]["sysctl"] = json!({"kernel.domainname": "e"});
        });
        let message = "domainname, linux.sysctl: two values of kernel.domainname";
        bundle.run().code(1).fails_as("jc-oci", message);
        assert!(!s.path("states/c").exists());
    });
}

#[test]
fn a_printed_chain_has_one_link_on_a_line() {
    sandbox(|s| {
        let mut bundle = Bundle::new(s, "true");
        let value = "a b,c\\d\te";
        bundle.change(|config| {
            config["mounts"] = json!([{"destination": format!("x/{value}"), "source": value, "options": ["rbind"]}]);
        });
        let words = ["--print", "run", "-b", bundle.path.to_str().unwrap(), "c"];
        let script = bundle.oci(&words).run().code(0).out();
        let lines: Vec<&str> = script.lines().collect();
        let group = "jc-cgroup -C -i -u -n -p --hostname jc-oci --loopback --path /jc-tests-oci-";
        assert!(lines[0].contains(group), "{script}");
        assert!(lines[1].contains("jc-rootfs --bare --gate mounts=4 --gate exec=5"), "{script}");
        let source = bundle.path.join("a\\040b,c\\134d\\011e");
        let word = format!("--mount '{} /x/a\\040b,c\\134d\\011e none rbind'", source.display());
        assert!(lines[1].contains(&word), "{script}");
        assert_eq!(lines[2], "sh -c true");
        assert!(!s.path("states").exists());
    });
}

#[test]
fn an_id_is_a_name_of_a_file() {
    sandbox(|s| {
        let bundle = Bundle::new(s, "true");
        let long = "x".repeat(256);
        for (id, fault) in [
            ("../c", "invalid character '/'"),
            ("a b", "invalid character ' '"),
            ("a\nb", "invalid character '\\n'"),
            ("\u{e4}", "invalid character '\u{e4}'"),
            (".", "invalid: it begins with a dot"),
            ("..", "invalid: it begins with a dot"),
            ("", "invalid: it is empty"),
            (&long, "invalid: it has more than 255 characters"),
        ] {
            let create = bundle.oci(&["create", "-b"]).arg(&bundle.path).arg("--").arg(id).run();
            create.code(1).fails_as("jc-oci", &format!("container ID {id:?}: {fault}"));
            bundle.oci(&["state", "--", id]).run().code(1).fails_as("jc-oci", "does not exist");
            bundle.oci(&["delete", "-f", "--", id]).run().code(0).stderr("");
        }
        assert!(!s.path("states/c").exists() && !s.path("c").exists());
    });
}

#[test]
fn another_file_of_the_bundle_has_the_configuration() {
    sandbox(|s| {
        let bundle = Bundle::new(s, "echo other");
        fs::rename(bundle.path.join("config.json"), bundle.path.join("other")).unwrap();
        let run = bundle.oci(&["run", "--no-pivot", "-f", "other", "-b"]).arg(&bundle.path);
        run.arg("c").run().code(0).stdout("other\n");
        bundle.run().code(1).fails_as("jc-oci", "config.json: No such file or directory");
    });
}
