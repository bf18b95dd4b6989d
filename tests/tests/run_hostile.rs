//! `jc-run`: records, image configurations and payloads that attack the chain, the host's files and the
//! state directory.

#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::symlink;

use jc_tests::image::{Image, Layout};
use jc_tests::roots::{busybox_layer, busybox_root, names};
use jc_tests::{Ran, Sandbox, sandbox};
use serde_json::{Value, json};

/// Runs a record of the small root with this configuration, without a network.
fn run(s: &Sandbox, config: &Value, args: &[&str]) -> Ran {
    let record = json!({"jc": 1, "layers": [s.path("root")], "config": config});
    let run = s.jc("jc-run").args(["--network", "none"]).args(args);
    run.input(format!("{record}\n")).run()
}

/// Prints the privileges of a process and every mount point with its options.
const PRIVILEGES: &str = "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp)' /proc/self/status
    cut -d' ' -f5-7 /proc/self/mountinfo";

#[test]
fn a_volume_of_an_image_carries_no_mount_options() {
    sandbox(|s| {
        busybox_root(s, "root");
        for path in ["/x:dev", "/x:shared", "/x:ro,exec", "/x:", "x", "/a/../x", "/", "/a\nb"] {
            let config = json!({"Volumes": {path: {}}});
            let ran = run(s, &config, &["--", "echo", "ran"]);
            ran.code(125).stdout("").fails_as("jc-run", "volume");
        }
        let config = json!({"Volumes": {"/x,dev=y -v": {}}});
        let script = "grep '/x,dev' /proc/self/mountinfo | cut -d' ' -f5-7";
        let ran = run(s, &config, &["--", "sh", "-c", script]).code(0).stderr("");
        assert_eq!(ran.out(), "/x,dev=y\\040-v rw,nodev,relatime -\n");
    });
}

/// Each of these bytes means something to a shell, to a parser of options, or to a C program.
#[test]
fn a_configuration_of_an_image_is_data() {
    sandbox(|s| {
        busybox_root(s, "root");
        let usual = run(s, &json!({}), &["--", "sh", "-c", PRIVILEGES]).code(0).out();
        let payload = json!(["/bin/sh", "-c", PRIVILEGES]);
        for byte in ["\n", "\0", "-", "--", "=", ":", ","] {
            for word in [
                byte.to_owned(),
                format!("0{byte}"),
                format!("/tmp{byte}dev"),
                format!("{byte}privileged"),
                format!("0{byte}--cap-add{byte}ALL"),
                format!("A={byte}"),
                format!("-v{byte}/:/host"),
            ] {
                for config in [
                    json!({"User": word}),
                    json!({"WorkingDir": word}),
                    json!({"Env": [word]}),
                    json!({"Cmd": ["/bin/sh", "-c", PRIVILEGES, word]}),
                    json!({"Entrypoint": [word]}),
                    json!({"Entrypoint": ["/bin/sh", "-c", PRIVILEGES], "Cmd": [word]}),
                    json!({"Volumes": {&word: {}}}),
                    json!({"StopSignal": word, "Hostname": word, "Domainname": word}),
                    json!({"ExposedPorts": {&word: {}}, "Labels": {&word: word}}),
                    json!({"Image": word, "Shell": [word], "OnBuild": [word], "MacAddress": word}),
                ] {
                    let mut config = config;
                    if config.get("Cmd").is_none() {
                        config["Cmd"] = payload.clone();
                    }
                    is_refused_or_usual(run(s, &config, &[]), &usual, &format!("{config}"));
                }
            }
        }
    });
}

/// A refused start runs no payload. The payload of another start has the usual privileges, and at most one more
/// volume, where devices do not work.
fn is_refused_or_usual(ran: Ran, usual: &str, config: &str) {
    let (out, code) = (ran.out(), ran.status().code());
    if code != Some(0) {
        assert!(out.is_empty() && [125, 126, 127].map(Some).contains(&code), "{config}\n{ran}");
        return;
    }
    let more: Vec<&str> = out.lines().filter(|line| !usual.lines().any(|u| u == *line)).collect();
    let is_volume = |line: &&str| line.contains("nodev") && line.ends_with(" -");
    assert!(more.len() <= 1 && more.iter().all(is_volume), "{config}\n{more:?}");
    assert!(usual.lines().all(|line| out.lines().any(|o| o == line)), "{config}\n{ran}");
}

#[test]
fn a_word_of_an_image_is_the_value_of_one_option() {
    sandbox(|s| {
        busybox_root(s, "root");
        for word in ["--privileged", "-v/:/host", "80 --privileged", "80/tcp,--privileged"] {
            let config = json!({"ExposedPorts": {word: {}}, "Env": [word], "User": word,
                "WorkingDir": word, "Cmd": [word]});
            let record = json!({"jc": 1, "rootfs": s.path("root"), "config": config});
            let run = s.jc("jc-run").args(["-P", "--print=json"]).input(format!("{record}\n"));
            let chain: Vec<Vec<String>> = serde_json::from_str(&run.run().code(0).out()).unwrap();
            let (payload, links) = chain.split_last().unwrap();
            assert_eq!(payload, &[word]);
            let words: Vec<&String> = links.iter().flatten().collect();
            for (option, joined) in [("--expose", "--expose="), ("-u", "-u"), ("-w", "-w")] {
                let pair = words.windows(2).any(|pair| pair[0] == option && pair[1] == word);
                let one = words.iter().any(|found| **found == format!("{joined}{word}"));
                assert!(pair != one, "{option} {word}: {words:?}");
            }
            assert!(!words.iter().any(|found| *found == "--privileged"), "{words:?}");
        }
    });
}

#[test]
fn a_working_directory_and_a_volume_stay_beneath_the_root() {
    sandbox(|s| {
        let root = busybox_root(s, "root");
        fs::create_dir(s.path("outside")).unwrap();
        symlink("/srv/outside", root.join("absolute")).unwrap();
        symlink("../../../../../../srv/outside", root.join("upward")).unwrap();
        symlink("/proc/self/root/srv/outside", root.join("magic")).unwrap();
        symlink("/proc/1/cwd", root.join("cwd")).unwrap();
        for link in ["absolute", "upward", "magic", "cwd"] {
            for record in [json!({"layers": [root]}), json!({"rootfs": root})] {
                let mut record = record;
                record["jc"] = json!(1);
                record["config"] = json!({"WorkingDir": format!("/{link}/w/x"),
                    "Volumes": {format!("/{link}/v/x"): {}}});
                let script = "pwd; grep -c v/x /proc/self/mountinfo";
                let run = s.jc("jc-run").args(["--network", "none", "--", "sh", "-c", script]);
                let ran = run.input(format!("{record}\n")).run();
                assert_eq!(names(&s.path("outside")), "", "{record}\n{ran}");
                if ran.status().code() != Some(125) {
                    let out = ran.code(0).out();
                    assert!(out.ends_with("/w/x\n1\n"), "{out}");
                }
            }
        }
    });
}

#[test]
fn files_in_etc_have_the_same_mode_whatever_the_umask_is() {
    sandbox(|s| {
        busybox_root(s, "root");
        let script = "for f in hosts hostname resolv.conf; do
                cat /etc/$f >/dev/null && stat -c %a /etc/$f
                (echo x >/etc/$f) 2>/dev/null && echo written
            done; exit 0";
        fs::write(s.path("script"), script).unwrap();
        for umask in ["077", "000", "022"] {
            for user in ["1000", "0"] {
                let line = format!(
                    "umask {umask}; jc-run -u {user} -v ./script:/script --rootfs root -- sh /script"
                );
                s.sh(&line).run().code(0).stdout("644\n644\n644\n").stderr("");
            }
            let line = format!(
                "umask {umask}; jc-run -d --name n --network none --rootfs root -- true >/dev/null
                cd /run/jc/n && stat -c %a state.json && jc-rm -f n"
            );
            s.sh(&line).run().code(0).stdout("600\n").stderr("");
        }
    });
}

#[test]
fn a_mount_of_the_command_line_replaces_a_file_in_etc() {
    sandbox(|s| {
        busybox_root(s, "root");
        fs::write(s.path("own"), "own\n").unwrap();
        let script = "cat /etc/hosts && echo more >> /etc/hosts";
        let options = ["--network", "none", "-v", "./own:/etc/hosts", "--rootfs", "root"];
        let ran = s.jc("jc-run").args(options).args(["--", "sh", "-c", script]).run();
        ran.code(0).stdout("own\n").stderr("");
        assert_eq!(fs::read_to_string(s.path("own")).unwrap(), "own\nmore\n");
    });
}

/// Characters by which an image could control the terminal of a user who lists it.
#[test]
fn an_image_does_nothing_to_a_terminal() {
    sandbox(|s| {
        let name = "amd64\u{1b}[2J\u{9b}2J\u{202e}\nfake";
        let image = Image::new().layer(busybox_layer()).architecture(name);
        Layout::new(s.path("image")).image("x", &image);
        let acts = |c: char| c != '\n' && c.is_control() || c == '\u{202e}';
        for line in ["jc-pull -q oci:image", "jc-images --json", "jc-images | tail -n +2"] {
            let out = s.sh(line).run().code(0).out();
            assert!(out.lines().count() == 1 && !out.contains(acts), "{line}: {out:?}");
        }
        let record = json!({"jc": 1, "rootfs": "/none\u{202e}\u{9b}x"});
        let run = s.jc("jc-run").args(["--network", "none", "--", "true"]);
        let ran = run.input(format!("{record}\n")).run().code(125).fails_as("jc-rootfs", "/none");
        assert!(!ran.err().contains(acts), "{:?}", ran.err());
    });
}

/// The state directory is in memory on most hosts.
#[test]
fn a_volume_of_an_image_is_in_the_store() {
    sandbox(|s| {
        busybox_root(s, "root");
        s.sh("mkdir small; mount -t tmpfs -o size=1m none small").run().code(0);
        let config = json!({"Volumes": {"/data": {}}});
        let script = "dd if=/dev/zero of=/data/file bs=1M count=5 2>/dev/null && echo written";
        let state = ["--state-dir", "small"];
        let ran = run(s, &config, &[&state[..], &["--", "sh", "-c", script]].concat());
        ran.code(0).stdout("written\n").stderr("");
        assert_eq!(names(&s.path("small")) + &names(&s.store().join("volumes")), "");
        s.sh("umount small; rmdir small").run().code(0);
        // A tmpfs in its place has a limit.
        let sized = ["--tmpfs", "/data:size=1m", "--", "sh", "-c", script];
        run(s, &config, &sized).code(1).stdout("");
        assert_eq!(names(&s.store().join("volumes")), "");
        // A kept volume stays until its removal.
        let script = "echo kept > /data/file";
        run(s, &config, &["--keep", "--name", "n", "--", "sh", "-c", script]).code(0).stderr("");
        s.jc("jc-list").run().code(0).stderr("");
        assert_eq!(fs::read_to_string("/run/jc/n/volumes/0/file").unwrap(), "kept\n");
        s.sh("stat -c %a store/volumes store/volumes/*").run().stdout("700\n700\n");
        s.sh("jc-rm n").run().code(0).stderr("");
        assert_eq!(names(&s.store().join("volumes")), "");
    });
}

/// The changes of a kept container are limited by the store, and none of them is in /run.
#[test]
fn changes_that_are_kept_are_in_the_store() {
    sandbox(|s| {
        busybox_root(s, "root");
        s.sh("mkdir small; mount -t tmpfs -o size=1m none small").run().code(0);
        let script = "dd if=/dev/zero of=/file bs=1M count=5 2>/dev/null && echo written";
        let record = json!({"jc": 1, "layers": ["/srv/root"]});
        let kept = |state: &str| {
            let options = ["--network", "none", "--keep", "--name", "n", "--state-dir", state];
            let run = s.jc("jc-run").args(options).args(["--", "sh", "-c", script]);
            run.input(format!("{record}\n")).run().code(0).stdout("written\n").stderr("")
        };
        kept("small");
        let upper = fs::metadata(s.path("small/n/volumes/changes/upper/file")).unwrap();
        assert_eq!(upper.len(), 5 << 20);
        s.sh("stat -c %a store/volumes/* store/volumes/*/changes").run().stdout("700\n700\n");
        s.sh("jc-rm --state-dir small n").run().code(0).stderr("");
        assert_eq!(names(&s.path("small")) + &names(&s.store().join("volumes")), "");
        s.sh("umount small; rmdir small").run().code(0);
        // The state directory is absent, as after a boot.
        kept("/run/jc");
        fs::remove_dir_all("/run/jc").unwrap();
        assert_ne!(names(&s.store().join("volumes")), "");
        s.jc("jc-list").run().code(0).stderr("");
        assert_eq!(names(&s.store().join("volumes")), "");
    });
}

#[test]
fn volumes_go_with_their_container_however_it_ends() {
    sandbox(|s| {
        busybox_root(s, "root");
        let config = json!({"Volumes": {"/data": {}}});
        let volumes = s.store().join("volumes");
        let start = || {
            let sleep = ["-d", "--rm", "--name", "n", "--", "sleep", "1000"];
            run(s, &config, &sleep).code(0).stderr("").out().trim().to_owned()
        };
        // The supervisor is killed.
        start();
        let kill = "kill -9 $(jq -r '.annotations[\"jc.supervisor\"]' /run/jc/n/state.json | cut -d' ' -f1)";
        s.sh(kill).run().code(0);
        s.wait_for_no_process();
        assert_ne!(names(&volumes), "");
        s.jc("jc-list").run().code(0).stderr("");
        assert_eq!(names(&volumes), "");
        // Another mount namespace shows the state directory, so a running container keeps its volumes.
        let id = start();
        s.sh("unshare -m sh -c 'mount -t tmpfs none /run && jc-list'").run().code(0).stderr("");
        assert_eq!(names(&volumes), format!("{id}\n"));
        s.sh("jc-rm -f n").run().code(0).stderr("");
        assert_eq!(names(&volumes), "");
        // The state directory is absent, as after a boot.
        run(s, &config, &["--keep", "--", "true"]).code(0);
        fs::remove_dir_all("/run/jc").unwrap();
        s.jc("jc-list").run().code(0).stderr("");
        assert_eq!(names(&volumes), "");
    });
}

#[test]
fn a_removal_of_volumes_follows_no_other_link() {
    sandbox(|s| {
        busybox_root(s, "root");
        let config = json!({"Volumes": {"/data": {}}});
        let id = run(s, &config, &["-d", "--name", "n", "--", "true"]).code(0).out();
        s.wait_for_no_process();
        fs::create_dir_all(s.path("victim/volumes/file")).unwrap();
        fs::remove_file("/run/jc/n/volumes").unwrap();
        symlink("/srv/victim/volumes/file", "/run/jc/n/volumes").unwrap();
        s.sh("jc-rm n").run().code(0).stderr("");
        assert!(s.path("victim/volumes/file").exists());
        // A directory of volumes of another user is not that of the store.
        fs::create_dir(s.path("other")).unwrap();
        s.sh("mkdir other/volumes; chown 5 other/volumes").run().code(0);
        let line = "JC_STORE=/srv/other jc-run --record record --network none -- true";
        let record = json!({"jc": 1, "rootfs": "/srv/root", "config": config});
        fs::write(s.path("record"), format!("{record}\n")).unwrap();
        s.sh(line).run().code(125).stdout("").fails_as("jc-run", "other/volumes");
        assert_eq!(names(&s.store().join("volumes")), id);
        s.jc("jc-list").run().code(0).stderr("");
        assert_eq!(names(&s.store().join("volumes")), "");
    });
}
