//! `jc-run`: the image's configuration, the options that replace it, and `--print`.

#![cfg(target_os = "linux")]

use std::fs;

use jc_tests::roots::busybox_root;
use jc_tests::{Ran, Sandbox, sandbox};
use serde_json::{Value, json};

const TOOL: &str = "jc-run";

/// Runs jc-run on a record of the small root with this config.
fn run(s: &Sandbox, config: &Value, args: &[&str]) -> Ran {
    if !s.path("root").exists() {
        busybox_root(s, "root");
    }
    let record = json!({"jc": 1, "rootfs": s.path("root"), "config": config});
    s.jc(TOOL).args(args).input(format!("{record}\n")).run()
}

/// The combination is that of Docker: arguments replace Cmd, behind Entrypoint.
#[test]
fn argv_is_entrypoint_and_then_the_users_or_cmd() {
    sandbox(|s| {
        for (entrypoint, cmd, user, out) in [
            (json!(["echo", "e"]), json!(["c", "d"]), &[][..], "e c d\n"),
            (json!(["echo", "e"]), json!(["c", "d"]), &["--", "u v", "-w"], "e u v -w\n"),
            (json!(["echo", "e"]), json!(null), &[], "e\n"),
            (json!(["echo", "e"]), json!([]), &["u"], "e u\n"),
            (json!(null), json!(["echo", "c"]), &[], "c\n"),
            (json!([]), json!(["echo", "c"]), &["echo", "u"], "u\n"),
            (json!(null), json!(["echo", "a  b", "", "c"]), &[], "a  b  c\n"),
            (json!(null), json!(null), &["--", "echo", "u"], "u\n"),
            (json!(["/bin/sh", "-c"]), json!(["echo shell $0", "x"]), &[], "shell x\n"),
        ] {
            let path = json!(["PATH=/bin"]);
            let config = json!({"Entrypoint": entrypoint, "Cmd": cmd, "Env": path});
            run(s, &config, user).code(0).stdout(out).stderr("");
        }
        for config in [json!({}), json!({"Entrypoint": null, "Cmd": []})] {
            run(s, &config, &[]).code(125).stdout("").fails_as(TOOL, "");
        }
        run(s, &json!({}), &["/bin/echo", "no config"]).code(0).stdout("no config\n");
    });
}

#[test]
fn env_is_the_images_and_then_the_users() {
    sandbox(|s| {
        let config = json!({"Env": ["PATH=/bin", "A=image", "B=x y", "C=", "D=a=b"]});
        let env = |options: &[&str]| {
            let mut args = options.to_vec();
            args.extend(["--", "sh", "-c", "env | grep -E '^[A-G]=' | sort"]);
            run(s, &config, &args).code(0).out()
        };
        assert_eq!(env(&[]), "A=image\nB=x y\nC=\nD=a=b\n");
        assert_eq!(env(&["-e", "A=user", "--env=E=1 2"]), "A=user\nB=x y\nC=\nD=a=b\nE=1 2\n");
        assert_eq!(env(&["-e", "NOT_SET_ANYWHERE"]), "A=image\nB=x y\nC=\nD=a=b\n");
        // HOME is that of the user, unless an option or the image sets it.
        let home = ["--", "sh", "-c", "echo $HOME"];
        run(s, &config, &home).stdout("/root\n");
        run(s, &json!({"Env": ["PATH=/bin", "HOME=/h"]}), &home).stdout("/h\n");
        run(s, &json!({"Env": ["PATH=/bin"], "User": "web"}), &home).stdout("/var/www\n");
        // Without a PATH in the image, a default one finds the program.
        run(s, &json!({}), &["--", "sh", "-c", "echo found"]).code(0).stdout("found\n");
    });
}

#[test]
fn a_variable_without_a_value_is_handed_on() {
    sandbox(|s| {
        busybox_root(s, "root");
        let args = ["-e", "GIVEN", "--rootfs", "root", "--", "sh", "-c", "echo $GIVEN"];
        s.jc(TOOL).args(args).env("GIVEN", "by the caller").run().stdout("by the caller\n");
    });
}

#[test]
fn working_directory_and_user_are_the_images_or_the_users() {
    sandbox(|s| {
        let config = json!({"Env": ["PATH=/bin"], "WorkingDir": "/var/www", "User": "web"});
        let show = |options: &[&str]| {
            let mut args = options.to_vec();
            args.extend(["--", "sh", "-c", "echo $PWD $(id -u):$(id -g) $(id -G)"]);
            run(s, &config, &args).code(0).out()
        };
        assert_eq!(show(&[]), "/var/www 33:34 34 4\n");
        assert_eq!(show(&["-w", "/tmp"]), "/tmp 33:34 34 4\n");
        assert_eq!(show(&["-u", "0"]), "/var/www 0:0 0\n");
        assert_eq!(show(&["--user=7:8", "--workdir=/etc"]), "/etc 7:8 8\n");
        for user in ["33:log", "web:4"] {
            let config = json!({"User": user});
            run(s, &config, &["--", "id", "-g"]).code(0).stdout("4\n");
        }
        for empty in
            [json!({"User": "", "WorkingDir": ""}), json!({"User": null, "WorkingDir": null})]
        {
            run(s, &empty, &["--", "sh", "-c", "echo $PWD $(id -u)"]).code(0).stdout("/ 0\n");
        }
        let unknown = json!({"User": "nobody-knows"});
        run(s, &unknown, &["--", "echo", "ran"]).code(125).stdout("").fails_as("jc-rootfs", "");
        run(s, &config, &["-w", "relative", "--", "echo", "ran"]).code(125).stdout("");
        // A missing directory is made.
        let config = json!({"WorkingDir": "/made/for/it"});
        run(s, &config, &["--", "pwd"]).code(0).stdout("/made/for/it\n");
    });
}

/// Runs the output of `--print` in a shell.
fn printed(s: &Sandbox, args: &[&str]) -> String {
    let ran = s.jc(TOOL).args(["--print", "--rootfs", "/srv/root"]).args(args).run();
    assert_eq!(s.processes(), Vec::<String>::new());
    ran.code(0).stderr("").out()
}

#[test]
fn print_shows_what_a_shell_runs_unchanged() {
    sandbox(|s| {
        busybox_root(s, "root");
        let script = "for a; do echo \"<$a>\"; done; echo $PWD $A $(id -u) $(hostname); exit 7";
        let args = [
            "-e",
            "A=$HOME 'x' \"y\"",
            "-w",
            "/var/www",
            "-u",
            "web",
            "--hostname",
            "h",
            "-m",
            "64M",
            "--tmpfs",
            "/t",
            "-v",
            "/etc:/the etc:ro",
            "--",
            "sh",
            "-c",
            script,
            "$0",
            "",
            " ",
            "a'b\"c",
            "$(touch /srv/evil)",
            "`touch /srv/evil`",
            "new\nline",
            "*",
            "\\",
            "--print",
            "~",
            "#",
            "ü",
        ];
        let direct = s.jc(TOOL).args(["--rootfs", "/srv/root"]).args(args).run();
        let out = "<>\n< >\n<a'b\"c>\n<$(touch /srv/evil)>\n<`touch /srv/evil`>\n<new\nline>\n<*>\n\
                   <\\>\n<--print>\n<~>\n<#>\n<ü>\n/var/www $HOME 'x' \"y\" 33 h\n";
        direct.code(7).stdout(out).stderr("");
        let chain = printed(s, &args);
        for shell in ["sh", "bash"] {
            s.cmd(shell).args(["-c", &chain]).run().code(7).stdout(out).stderr("");
            // The chain is read from a terminal, or from a file.
            s.cmd(shell).input(chain.clone()).run().code(7).stdout(out).stderr("");
        }
        assert!(!s.path("evil").exists());
        // The files of a chain by hand stay at its end, and jc-list removes them.
        s.jc("jc-list").args(["-a", "-q"]).run().code(0).stdout("");
    });
}

#[test]
fn print_does_nothing_to_a_terminal() {
    sandbox(|s| {
        let words =
            ["\u{1b}]0;x\u{7}", "\u{9b}2J", "\u{202e}", "a\nb", "a\n", "\n\n", "\\n%s'-", "-\t'\r"];
        let env: Vec<String> =
            words.iter().enumerate().map(|(n, word)| format!("V{n}={word}")).collect();
        let script = "for word; do printf '<%s>' \"$word\"; done; printf '[%s]' \"$V0\" \"$V1\" \"$V2\" \
            \"$V3\" \"$V4\" \"$V5\" \"$V6\" \"$V7\"";
        let cmd = [["sh", "-c", script, "0"].as_slice(), &words].concat();
        let config = json!({"Env": env, "Cmd": cmd});
        let options = ["--network", "none"];
        let mut expected: String = words.iter().map(|word| format!("<{word}>")).collect();
        expected.extend(words.iter().map(|word| format!("[{word}]")));
        run(s, &config, &options).code(0).stdout(&expected);
        let printed = run(s, &config, &[&options[..], &["--print"]].concat()).code(0).out();
        let acts = |c: char| c != '\n' && c.is_control() || c == '\u{202e}';
        assert!(!printed.contains(acts), "{printed:?}");
        // The lines are those that make files, one for the variable, and one for each link.
        assert!(printed.lines().count() <= 9, "{printed}");
        for shell in ["dash", "bash", "busybox sh"] {
            let mut words = shell.split(' ');
            let run = s.cmd(words.next().unwrap()).args(words).input(printed.clone());
            run.run().code(0).stdout(&expected).stderr("");
        }
        let json = run(s, &config, &[&options[..], &["--print=json"]].concat()).code(0).out();
        assert!(!json.contains(acts), "{json:?}");
        s.jc("jc-list").args(["-a", "-q"]).run().code(0).stdout("");
    });
}

#[test]
fn print_shows_the_chain_of_links() {
    sandbox(|s| {
        busybox_root(s, "root");
        let links = |args: &[&str]| -> Vec<String> {
            let chain = printed(s, args);
            let links = chain.lines().filter(|line| line.starts_with("jc-"));
            links.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
        };
        let without = links(&["--", "true"]);
        assert_eq!(without, ["jc-net", "jc-unshare", "jc-rootfs"]);
        let with = links(&["-m", "64M", "--", "true"]);
        assert_eq!(with, ["jc-cgroup", "jc-net", "jc-rootfs"]);
        let with_init = links(&["--init", "-m", "64M", "--", "true"]);
        assert_eq!(with_init, ["jc-cgroup", "jc-net", "jc-unshare", "jc-rootfs"]);
        let unplugged = links(&["--network", "none", "--", "true"]);
        assert_eq!(unplugged, ["jc-unshare", "jc-rootfs"]);
    });
}

/// Each link of a printed chain works without those before it.
#[test]
fn every_link_of_the_chain_runs_alone() {
    sandbox(|s| {
        busybox_root(s, "root");
        for options in [&["-m", "64M"][..], &[]] {
            let payload = ["--hostname", "h", "--", "sh", "-c", "echo ran"];
            let chain = printed(s, &[options, &payload].concat());
            let starts: Vec<usize> = chain.match_indices("\njc-").map(|(at, _)| at + 1).collect();
            assert_eq!(starts.len(), 3, "{chain}");
            // The files for the links are made first.
            s.sh(&chain[..starts[0]]).run().code(0).stdout("").stderr("");
            for at in starts {
                s.sh(&chain[at..]).run().code(0).stdout("ran\n").stderr("");
            }
        }
        s.jc("jc-list").args(["-a", "-q"]).run().code(0).stdout("");
    });
}

#[test]
fn print_reads_a_record_as_running_does() {
    sandbox(|s| {
        let config = json!({"Cmd": ["echo", "from the config"], "Env": ["PATH=/bin"]});
        let chain = run(s, &config, &["--print"]).code(0).out();
        s.sh(&chain).run().code(0).stdout("from the config\n");
        s.jc("jc-list").args(["-a", "-q"]).run().code(0).stdout("");
        run(s, &json!({}), &["--print"]).code(125).stdout("").fails_as(TOOL, "");
    });
}

#[test]
fn the_state_dir_is_where_it_is_said_to_be() {
    sandbox(|s| {
        busybox_root(s, "root");
        for (set, options) in [("", "--state-dir states"), ("JC_STATE_DIR=/srv/states", "")] {
            let line = |tool: &str| format!("{set} {tool} {options}");
            let run = format!("{} -d --name x --rootfs root -- sleep 1000", line("jc-run"));
            s.sh(&run).run().code(0).stderr("");
            assert!(fs::exists("/srv/states/x/state.json").unwrap());
            assert!(!fs::exists("/run/jc").unwrap());
            let exec = format!("{} x echo in", line("jc-exec"));
            s.sh(&exec).run().code(0).stdout("in\n");
            s.sh(&format!("{} -f x", line("jc-rm"))).run().code(0).stderr("");
            // A directory that an option names stays.
            assert_eq!(fs::read_dir("/srv/states").unwrap().count(), 0);
        }
        s.sh("chown 5 states; jc-run --state-dir states --rootfs root true")
            .run()
            .code(125)
            .fails_as("jc-run", "states");
        s.sh("jc-run --state-dir root/etc/passwd --rootfs root true")
            .run()
            .code(125)
            .fails_as("jc-run", "");
    });
}
