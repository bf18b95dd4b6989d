//! Every kind of user: root, a user with subordinate IDs, a user without, and root of a user namespace.

#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::MetadataExt;

use jc_tests::image::{Image, Layout};
use jc_tests::layer::{Entry, Layer};
use jc_tests::roots::busybox_layer;
use jc_tests::{Cmd, Sandbox, require, sandbox};
use serde_json::json;

/// Two users in files bound over those of /etc: ann has a range of subordinate IDs, bob has none.
struct Users<'a>(&'a Sandbox);

const ANN: u32 = 4321;
const BOB: u32 = 4322;

impl<'a> Users<'a> {
    fn new(s: &'a Sandbox) -> Self {
        let passwd = fs::read_to_string("/etc/passwd").unwrap();
        let passwd = format!(
            "{passwd}ann:x:{ANN}:{ANN}::/srv/ann:/bin/sh\nbob:x:{BOB}:{BOB}::/srv/bob:/bin/sh\n"
        );
        let range = "ann:200000:65536\n";
        for (name, text) in [("passwd", &*passwd), ("subuid", range), ("subgid", range)] {
            fs::write(s.path(name), text).unwrap();
            s.sh(&format!("mount --bind {name} /etc/{name}")).run().code(0);
        }
        let more = Layer::new()
            .entry(Entry::dir("home/").owner(0, 0))
            .entry(Entry::file("home/f", "of root").mode(0o600))
            .entry(Entry::device("null", 1, 3));
        let image = Image::new().layer(busybox_layer()).layer(more).config(json!({"Cmd": ["id"]}));
        Layout::new(s.path("image")).image("x", &image);
        for (name, uid) in [("ann", ANN), ("bob", BOB)] {
            s.sh(&format!("mkdir -p {name}/src && chown -R {uid}:{uid} {name}")).run().code(0);
        }
        Self(s)
    }

    /// A line of a user, in the user's home.
    fn sh(&self, name: &str, line: &str) -> Cmd {
        let home = format!("HOME=/srv/{name}");
        let line = format!("cd; {}", line.replace("IMAGE", "oci:/srv/image"));
        let id = if name == "ann" { "4321" } else { "4322" };
        let user = ["--reuid", id, "--regid", id, "--clear-groups", "--", "env", "-u", "JC_STORE"];
        self.0.cmd("setpriv").args(user).args([&*home, "sh", "-c", &line])
    }
}

impl Drop for Users<'_> {
    fn drop(&mut self) {
        drop(self.0.sh("umount /etc/passwd /etc/subuid /etc/subgid").run());
    }
}

/// The lines of README for a build in a container.
#[test]
fn files_of_a_build_belong_to_the_user_who_runs_it() {
    sandbox(|s| {
        require(s, "newuidmap", "uidmap");
        let users = Users::new(s);
        for (name, uid) in [("ann", ANN), ("bob", BOB)] {
            let run = "jc-run --network none --userns keep-id -v $PWD/src:/src --image IMAGE";
            for (options, payload, out) in [
                ("", "id -u; id -g; touch /src/a", format!("{uid}\n{uid}\n")),
                ("-u $(id -u):$(id -g)", "id -u; touch /src/b", format!("{uid}\n")),
                // Files of the image's root appear as the user's.
                ("", "cat /home/f; echo; stat -c %u /home/f", format!("of root\n{uid}\n")),
                ("", "grep CapEff /proc/self/status", "CapEff:\t0000000000000000\n".to_owned()),
                (
                    "--privileged",
                    "grep CapEff /proc/self/status",
                    "CapEff:\t0000000000000000\n".to_owned(),
                ),
                ("", "ls /null 2>/dev/null || echo none", "none\n".to_owned()),
            ] {
                let ran = users.sh(name, &format!("{run} {options} -- sh -c '{payload}'")).run();
                ran.code(0).stdout(&out);
            }
            for file in ["a", "b"] {
                assert_eq!(fs::metadata(s.path(name).join("src").join(file)).unwrap().uid(), uid);
            }
        }
        for (name, uid, pull) in [("ann", ANN, ""), ("bob", BOB, "--ignore-chown")] {
            let job = format!(
                "jc-pull -q {pull} IMAGE > image && jc-run --network none -v $PWD/src:/src -w /src -- touch d < image"
            );
            users.sh(name, &job).run().code(0);
            assert_eq!(fs::metadata(s.path(name).join("src/d")).unwrap().uid(), uid);
        }
        let other =
            "jc-run --network none -u $(id -u) -v $PWD/src:/src --image IMAGE -- touch /src/c";
        for name in ["ann", "bob"] {
            let ran = users.sh(name, other).run();
            assert!(!ran.status().success() && ran.err().contains("--userns keep-id"), "{ran}");
        }
        let root = "jc-run --network none --userns keep-id -u 0 --image IMAGE -- id -u";
        users.sh("ann", root).run().code(0).stdout("0\n");
        users.sh("bob", root).run().code(125).fails_as("jc-rootfs", "setresgid 0");
    });
}

#[test]
fn a_container_that_keeps_the_id_has_a_life() {
    sandbox(|s| {
        require(s, "newuidmap", "uidmap");
        let users = Users::new(s);
        for (name, uid) in [("ann", ANN), ("bob", BOB)] {
            let run = "jc-run -d --keep --name n --network none --userns keep-id --image IMAGE -- sleep 1000";
            users.sh(name, run).run().code(0);
            let exec = "jc-exec n sh -c 'id -u; grep CapEff /proc/self/status; touch /tmp/f'";
            let out = format!("{uid}\nCapEff:\t0000000000000000\n");
            users.sh(name, exec).run().code(0).stdout(&out);
            users
                .sh(name, "jc-stop -t 0 n && jc-rm n && jc-list -aq")
                .run()
                .code(0)
                .stdout("")
                .stderr("");
        }
        s.wait_for_no_process();
    });
}

#[test]
fn device_nodes_that_nobody_could_use_are_left_out() {
    sandbox(|s| {
        require(s, "newuidmap", "uidmap");
        let users = Users::new(s);
        let ran = users
            .sh("ann", "jc-pull -q IMAGE > record && jc-run --network none < record -- ls /")
            .run()
            .code(0);
        assert!(ran.err().contains("null: device nodes are left out"), "{ran}");
        assert!(!ran.out().contains("null"), "{ran}");
        users.sh("ann", "jc-images --check").run().code(0).stderr("");
        // Root makes them.
        let ran = s.sh("jc-run --network none --image oci:/srv/image -- stat -c %t:%T /null").run();
        assert!(ran.code(0).out().contains("1:3\n"));
    });
}
