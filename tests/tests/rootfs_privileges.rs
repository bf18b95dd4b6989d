//! jc-rootfs: the credentials and the privileges of the payload.

#![cfg(target_os = "linux")]

use jc_tests::{Sandbox, sandbox, skip};

mod rootfs_support;
use rootfs_support::{by_runtime, has, in_layer, root};

/// The lines of `/proc/self/status` about privileges.
const STATUS: &str = "grep -E '^(Uid|Gid|Groups|Cap[A-Za-z]*|NoNewPrivs):' /proc/self/status";

/// The value of one of the lines.
fn status(s: &Sandbox, options: &[&str], name: &str) -> String {
    let script = format!("sed -n 's/^{name}:[[:space:]]*//p' /proc/self/status");
    in_layer(s, options, &script).run().code(0).out()
}

#[test]
fn capabilities_are_the_same_in_all_sets() {
    sandbox(|s| {
        root(s, "root");
        let held = status(s, &[], "CapPrm");
        let sets = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
        let none = "0000000000000000\n";
        let chown_kill = "0000000000000021\n";
        let chown = "0000000000000001\n";
        let drop_all = &["--cap-drop", "ALL"][..];
        let two = &["--cap-drop", "all", "--cap-add", "CHOWN", "--cap-add", "cap_kill"][..];
        let user = &["--cap-drop=ALL", "--cap-add=CHOWN,cap_kill", "-u", "web"][..];
        let ambient = &[user, &["--cap-ambient", "CHOWN"]].concat()[..];
        for (options, expected) in [
            (drop_all, [none; 5]),
            (two, [none, chown_kill, chown_kill, chown_kill, none]),
            (user, [none, none, none, chown_kill, none]),
            (ambient, [chown, chown, chown, chown_kill, chown]),
            (&["--cap-add", "ALL"], [none, &held, &held, &held, none]),
        ] {
            let found = sets.map(|set| status(s, options, set));
            assert_eq!(found, expected, "{options:?}");
        }
        for (options, error) in [
            (&["--cap-add", "FLY"][..], "--cap-add"),
            (&["--cap-drop", "KILL,FLY"], "FLY"),
            (&["--cap-drop", "KILL,"], "--cap-drop"),
            (
                &["--cap-drop", "ALL", "--cap-ambient", "KILL"],
                "--cap-ambient KILL: not in the bounding set of the payload",
            ),
        ] {
            in_layer(s, options, ":").run().code(125).fails_as("jc-rootfs", error);
        }
        // Inheritable capabilities of the caller do not reach the payload (CVE-2022-27650, -29162).
        let chown =
            ["--inh-caps=+chown", "jc-rootfs", "--layer", "root", "--cap-add=ALL", "--", "grep"];
        let ran = s.cmd("setpriv").args(chown).args(["CapInh", "/proc/self/status"]).run();
        ran.code(0).stdout("CapInh:\t0000000000000000\n");
        // Without CAP_SETPCAP no capability can be dropped, and absent capabilities cannot be given.
        let poor = |option: &str| {
            s.cmd("setpriv")
                .args([
                    "--inh-caps=-all",
                    "--bounding-set=-all,+sys_admin,+dac_override",
                    "jc-rootfs",
                ])
                .args(["--layer", "root", option, "--", "true"])
                .run()
        };
        poor("--cap-drop=ALL").code(125).fails_as("jc-rootfs", "Operation not permitted");
        poor("--cap-add=NET_RAW")
            .code(125)
            .fails_as("jc-rootfs", "capability NET_RAW: not held by this process");
    });
}

#[test]
fn privileges_are_those_that_runtimes_give() {
    sandbox(|s| {
        if !has(s, "runc") || !has(s, "crun") {
            skip!("no runc or crun to compare with");
        }
        root(s, "root");
        for (options, filter) in [
            (
                &["--cap-drop=ALL", "--cap-add=CHOWN", "--cap-add=KILL"][..],
                caps(r#""CAP_CHOWN","CAP_KILL""#, ""),
            ),
            (&["--cap-drop=ALL", "--no-new-privs"], caps("", ".process.noNewPrivileges = true |")),
            (
                &["--cap-drop=ALL", "-u", "web", "--group-add", "extra"],
                caps("", ".process.user = {uid: 33, gid: 34, additionalGids: [4, 77]} |"),
            ),
        ] {
            let ours = in_layer(s, options, STATUS).run().code(0).out();
            for runtime in ["runc", "crun"] {
                let filter = format!(".process.noNewPrivileges = false | {filter}");
                let theirs = by_runtime(s, runtime, &filter, STATUS).run().code(0).out();
                assert_eq!(ours, theirs, "{runtime} {options:?}");
            }
        }
    });
}

/// A jq(1) filter for a runtime's configuration that gives root these capabilities.
fn caps(names: &str, more: &str) -> String {
    format!(
        "{more} .process.capabilities = {{bounding: [{names}], permitted: [{names}], effective: [{names}],
         inheritable: [], ambient: []}}"
    )
}

#[test]
fn no_new_privs_keeps_set_user_id_from_working() {
    sandbox(|s| {
        root(s, "root");
        s.sh("rm root/bin/id; cp root/bin/busybox root/bin/id; chmod u+s root/bin/id")
            .run()
            .code(0);
        let effective = |options: &[&str]| {
            let options = [&["-u", "web"], options].concat();
            in_layer(s, &options, "id -u; grep NoNewPrivs /proc/self/status").run().code(0).out()
        };
        // busybox drops privileges that it does not need. The real user is unchanged.
        assert!(effective(&[]).ends_with("NoNewPrivs:\t0\n"));
        assert!(effective(&["--no-new-privs"]).ends_with("NoNewPrivs:\t1\n"));
    });
}

#[test]
fn groups_are_added() {
    sandbox(|s| {
        root(s, "root");
        for (options, groups) in [
            (&["-u", "web"][..], "34 4\n"),
            (&["-u", "web", "--group-add", "extra", "--group-add", "1234"], "34 4 77 1234\n"),
            (&["-u", "web:0", "--group-add", "4"], "0 4\n"),
            (&["-u", "web", "--group-add", "log"], "34 4\n"),
        ] {
            in_layer(s, options, "id -G").run().code(0).stdout(groups);
        }
        in_layer(s, &["--group-add", "extra"], "id -G | grep -ow 77").run().code(0).stdout("77\n");
        in_layer(s, &["--group-add", "none"], ":")
            .run()
            .code(125)
            .stderr("jc-rootfs: group \"none\": not in /etc/group of this root\n");
    });
}

#[test]
fn limits_are_set_or_an_error() {
    sandbox(|s| {
        root(s, "root");
        let script = "ulimit -Sn; ulimit -Hn; ulimit -c; ulimit -Ss";
        let options =
            ["--ulimit", "nofile=100:200", "--ulimit", "core=0", "--ulimit=stack=1048576"];
        in_layer(s, &options, script).run().code(0).stdout("100\n200\n0\n1024\n");
        // Without CAP_SYS_RESOURCE no hard limit can be raised.
        let words = ["--bounding-set=-sys_resource", "prlimit", "--nofile=50:60", "jc-rootfs"];
        let poor = s.cmd("setpriv").args(words).args(["--layer", "root", "--ulimit", "nofile=61"]);
        poor.args(["--", "true"]).run().code(125).stderr(
            "jc-rootfs: setrlimit nofile: Operation not permitted\n\
             jc-rootfs: hint: raising a hard limit needs CAP_SYS_RESOURCE\n",
        );
    });
}

#[test]
fn the_environment_comes_from_here_from_files_and_from_options() {
    sandbox(|s| {
        root(s, "root");
        s.sh("printf '# c\\nA=file\\nB=file two\\nPASS\\nABSENT\\n' >vars; echo 'B=later' >more")
            .run()
            .code(0);
        let env = "env | grep -v -e ^PWD= -e ^SHLVL= -e ^PATH= | sort";
        let options = [
            "--clear-env",
            "--env-file",
            "vars",
            "--env-file",
            "more",
            "-e",
            "A=option",
            "-e",
            "HOME=/h",
        ];
        in_layer(s, &options, env)
            .env("PASS", "on")
            .env("OTHER", "x")
            .run()
            .code(0)
            .stdout("A=option\nB=later\nHOME=/h\nPASS=on\n");
        // Variables for other programs of the chain do not reach the payload.
        in_layer(s, &["-e", "JC_MINE=1"], "env | grep ^JC_")
            .env("JC_STORE", "/x")
            .run()
            .stdout("JC_MINE=1\n");
        in_layer(s, &["--env-file", "none"], ":")
            .run()
            .code(125)
            .stderr("jc-rootfs: read none: No such file or directory\n");
    });
}
