//! Words of the command line, of images and of files that look like another kind of word: users, mounts, and files
//! without an end.

#![cfg(target_os = "linux")]

use std::fs;

use jc_tests::roots::busybox_root;
use jc_tests::seccomp::without_if;
use jc_tests::{Ran, Sandbox, sandbox};
use nix::libc::{self, EINVAL};
use serde_json::json;

/// Words that are no user of the root below. Some of them have the number of root in a C library.
const NO_USERS: [&str; 14] = [
    "00",
    "000",
    "01",
    "+0",
    "+1",
    "-0",
    "-1",
    "4294967296",
    "4294967295",
    "0x0",
    " 0",
    "0 ",
    "0\n",
    "%d",
];

/// The small root of an image that gives the number of root to names that look like other words.
fn root(s: &Sandbox) {
    let root = busybox_root(s, "root");
    let passwd = "root:x:0:0::/:\nweb:x:33:34::/:\n:x:0:0::/:\n1000:x:0:0::/:\n";
    fs::write(root.join("etc/passwd"), passwd).unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nweb:x:34:\n:x:0:\n1000:x:0:\n").unwrap();
}

/// Starts a container, or a program in one, as a user.
type Start<'a> = &'a dyn Fn(&str) -> Ran;

/// Prints the user, the group and the supplementary groups of the payload.
const ID: [&str; 3] = ["sh", "-c", "echo $(id -u) $(id -g) $(id -G)"];

#[test]
fn only_plain_decimal_digits_are_the_number_of_a_user() {
    sandbox(|s| {
        root(s);
        let rootfs = |user: &str| {
            s.jc("jc-rootfs").args(["-u", user, "--layer", "root", "--"]).args(ID).run()
        };
        let run = |user: &str| {
            let options = ["--network", "none", "-u", user, "--rootfs", "root", "--"];
            s.jc("jc-run").args(options).args(ID).run()
        };
        let image = |user: &str| {
            let record = json!({"jc": 1, "rootfs": s.path("root"), "config": {"User": user}});
            let run = s.jc("jc-run").args(["--network", "none", "--"]).args(ID);
            run.input(format!("{record}\n")).run()
        };
        let start = "jc-run -d --rm --network none --rootfs root -- sleep 1000";
        let id = s.sh(start).run().code(0).out();
        let exec = |user: &str| s.jc("jc-exec").args(["-u", user, id.trim()]).args(ID).run();
        let ways: [(&str, Start<'_>); 4] =
            [("jc-rootfs", &rootfs), ("jc-run", &run), ("image", &image), ("jc-exec", &exec)];
        for (way, start) in ways {
            let groups = NO_USERS.iter().map(|word| format!("1:{word}"));
            let users = NO_USERS.iter().map(|word| (*word).to_owned());
            let more = ["1:", ":1", ":", "1:1:1", "web:+34"].map(str::to_owned);
            for word in users.chain(groups).chain(more) {
                let ran = start(&word);
                assert_eq!(
                    (ran.out().as_str(), ran.status().code()),
                    ("", Some(125)),
                    "{way} {word:?}"
                );
            }
            for (word, found) in [
                ("0", "0 0 0"),
                ("1", "1 0 0"),
                ("web", "33 34 34"),
                ("33", "33 34 34"),
                ("1000", "1000 0 0"),
                ("33:1000", "33 1000 1000"),
                ("4294967294", "4294967294 0 0"),
            ] {
                let ran = start(word).code(0);
                assert_eq!(ran.out(), format!("{found}\n"), "{way} {word:?}");
            }
        }
        for start in [&rootfs as Start<'_>, &run, &exec] {
            start("").code(125).stdout("");
        }
        s.sh("jc-rm -f \"$0\"").arg(id.trim()).run().code(0);
    });
}

#[test]
fn files_without_an_end_are_refused() {
    sandbox(|s| {
        root(s);
        s.sh("printf 'A=1\\n#' >env && head -c 1048571 /dev/zero | tr '\\0' x >>env && cp env longer &&
            echo >>longer && truncate -s 17M root/etc/group")
            .run()
            .code(0);
        let limited =
            |words: &str| s.sh(&format!("exec prlimit --as=500000000 {words} root -- env")).run();
        for options in ["--env-file", "--seccomp"] {
            for file in ["/dev/zero", "/proc/self/fd/0 </dev/zero", "longer"] {
                let word = file.split(' ').next().unwrap();
                let ran = limited(&format!("jc-rootfs {options} {file}"));
                let error = format!("jc-rootfs: read {word}: longer than 1048576 bytes\n");
                ran.code(125).stdout("").stderr(&error);
            }
        }
        for options in ["--env-file /dev/zero", "--security-opt seccomp=/dev/zero"] {
            let ran = limited(&format!("jc-run --network none {options} --rootfs"));
            let error = "jc-rootfs: read /dev/zero: longer than 1048576 bytes\n";
            ran.code(125).stdout("").stderr(error);
        }
        // A file of the maximal length, and a FIFO that the caller names.
        limited("jc-rootfs --clear-env --env-file env").code(0).stdout("A=1\nHOME=/\n");
        let fifos = "jc-rootfs --clear-env --env-file <(echo B=2) --no-new-privs \
                     --seccomp <(echo '{\"defaultAction\":\"SCMP_ACT_ALLOW\"}') root -- env";
        s.cmd("bash").args(["-c", fifos]).run().code(0).stdout("B=2\nHOME=/\n");
        s.jc("jc-rootfs")
            .args(["--group-add", "web", "root", "--", "true"])
            .run()
            .code(125)
            .stderr("jc-rootfs: read /etc/group: longer than 16777216 bytes\n");
    });
}

/// Names of directories with a meaning for a parser of mount options or for a terminal.
const NAMES: [&str; 10] = [
    "a,b",
    "a:b",
    "a\\b",
    "a\\,b\\:c\\\\",
    "a\nb",
    "a b\tc",
    "lowerdir=x,upperdir=y,workdir=z",
    "a,userxattr,redirect_dir=on",
    "-o,suid,dev",
    "\u{1b}[2J'\"$(id)",
];

#[test]
fn a_name_of_a_directory_is_no_mount_option() {
    sandbox(|s| {
        root(s);
        let show = "cat /own; echo new >/new; for o in userxattr redirect_dir=on suid; do
            grep ' / / ' /proc/self/mountinfo | grep -o \"[ ,]$o\\(,\\|$\\)\"; done; true";
        for name in NAMES {
            let (layer, upper) =
                (s.path(&format!("layer {name}")), s.path(&format!("upper {name}")));
            fs::create_dir(&layer).unwrap();
            fs::write(layer.join("own"), name).unwrap();
            let start = || {
                fs::create_dir(&upper).unwrap();
                let command = s.jc("jc-rootfs").args(["--layer", "root", "--layer"]).arg(&layer);
                let command = command.arg("--upper").arg(&upper);
                command.args(["--", "sh", "-c", show])
            };
            let check = |ran: Ran, way: &str| {
                assert_eq!(ran.code(0).out(), name, "{way}");
                assert_eq!(fs::read_to_string(upper.join("upper/new")).unwrap(), "new\n", "{way}");
                fs::remove_dir_all(&upper).unwrap();
            };
            check(start().run(), "layers by descriptor");
            // overlayfs before Linux 6.13 rejects FSCONFIG_SET_FD.
            let command = start();
            let ran = without_if(libc::SYS_fsconfig, (1, 5), EINVAL, || command.spawn()).wait();
            check(ran, "layers by name");
            let bind = format!("{}:/tmp", layer.display());
            let command = s.jc("jc-rootfs").args(["-v", &bind, "root", "--", "cat", "/tmp/own"]);
            if name.contains(':') {
                command.run().code(125).stdout("")
            } else {
                command.run().code(0).stdout(name)
            };
        }
    });
}

/// The options of mount(8) that jc-rootfs does not have are not passed on.
#[test]
fn a_mount_has_the_options_that_the_page_lists_and_no_others() {
    sandbox(|s| {
        root(s);
        fs::create_dir(s.path("dir")).unwrap();
        for word in [
            "dir:/tmp:bind-propagation=shared,dev",
            "dir:/tmp:remount",
            "dir:/tmp:upperdir=/x",
            "dir:/tmp:ro,,dev",
            "dir:/tmp:ro\ndev",
            "dir:/tmp:ro:dev",
        ] {
            let ran = s.jc("jc-rootfs").args(["-v", word, "root", "--", "true"]).run();
            ran.code(125).fails_as("jc-rootfs", "unknown option");
        }
        for words in [
            ["--tmpfs", "/tmp:size=1m,dev=1"],
            ["--tmpfs", "/tmp:size=1m\\,mode=0777"],
            ["--tmpfs", "/tmp:mode=0777\n"],
            ["--shm-size", "1m,mode=0777"],
            ["--upper", "tmpfs:1m,mode=0777"],
            ["--upper", "tmpfs:1m:dev"],
        ] {
            s.jc("jc-rootfs").args(words).args(["root", "--", "true"]).run().code(125).stdout("");
        }
    });
}
