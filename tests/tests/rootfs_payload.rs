//! `jc-rootfs` alone: the user, the working directory and the environment of the payload.

#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use jc_tests::roots::busybox_root;
use jc_tests::{Cmd, Sandbox, sandbox};

const TOOL: &str = "jc-rootfs";

/// The forms of a root.
const FORMS: [&[&str]; 3] = [&[], &["--upper", "tmpfs"], &["--chroot"]];

/// jc-rootfs with these options over a directory, and a shell command.
fn sh(s: &Sandbox, form: &[&str], options: &[&str], root: &Path, script: &str) -> Cmd {
    s.jc(TOOL).args(form).args(options).arg(root).args(["--", "sh", "-c", script])
}

#[test]
fn the_root_decides_who_a_named_user_is() {
    sandbox(|s| {
        let root = busybox_root(s, "root");
        for form in FORMS {
            let id = |option: &str, user: &str| {
                let script = "echo $(id -u):$(id -g) $(id -G) $HOME";
                let options = [option, user, "--clear-env", "-e", "PATH=/bin"];
                sh(s, form, &options, &root, script).run()
            };
            id("-u", "web").code(0).stdout("33:34 34 4 /var/www\n");
            id("--user", "33").code(0).stdout("33:34 34 4 /var/www\n");
            id("-u", "web:log").code(0).stdout("33:4 4 /var/www\n");
            id("-u", "web:77").code(0).stdout("33:77 77 /var/www\n");
            id("-u", "99").code(0).stdout("99:0 0 /\n");
            id("-u", "99:98").code(0).stdout("99:98 98 /\n");
            id("-u", "root").code(0).stdout("0:0 0 /root\n");
            for unknown in ["nobody", "web:nobody", "", ":4", "-1", "4294967296", "web:"] {
                let ran = id("-u", unknown);
                ran.code(125).stdout("").fails_as(TOOL, "");
            }
        }
        // Users can be given by number without the files.
        fs::remove_dir_all(root.join("etc")).unwrap();
        sh(s, &[], &["-u", "5:6"], &root, "id -u; id -g").run().code(0).stdout("5\n6\n");
        sh(s, &[], &["-u", "web"], &root, "echo ran").run().code(125).fails_as(TOOL, "web");
    });
}

#[test]
fn another_user_has_no_power_left() {
    sandbox(|s| {
        let root = busybox_root(s, "root");
        let script = "grep -E '^Cap(Prm|Eff|Amb)' /proc/self/status; echo x > /etc/passwd";
        let ran = sh(s, &[], &["-u", "web"], &root, script).run();
        let none = "0000000000000000";
        assert!(ran.err().contains("Permission denied"), "{ran}");
        ran.stdout(&format!("CapPrm:\t{none}\nCapEff:\t{none}\nCapAmb:\t{none}\n"));
    });
}

#[test]
fn a_working_directory_is_where_it_starts() {
    sandbox(|s| {
        let root = busybox_root(s, "root");
        for form in FORMS {
            sh(s, form, &[], &root, "pwd").run().code(0).stdout("/\n");
            sh(s, form, &["-w", "/var/www"], &root, "pwd").run().code(0).stdout("/var/www\n");
            sh(s, form, &["--workdir=/etc"], &root, "cat passwd | wc -l").run().stdout("2\n");
            for bad in ["relative", "", "/etc/passwd"] {
                let ran = sh(s, form, &["-w", bad], &root, "echo ran").run();
                ran.code(125).stdout("").fails_as(TOOL, "");
            }
        }
        let form = ["--upper", "tmpfs"];
        sh(s, &form, &["-w", "/new/and/deep"], &root, "pwd").run().stdout("/new/and/deep\n");
        assert!(!root.join("new").exists());
        sh(s, &["--chroot"], &["-w", "/new"], &root, "pwd").run().code(125).fails_as(TOOL, "/new");
        assert!(!root.join("new").exists());
    });
}

#[test]
fn the_environment_is_the_callers_and_what_is_set() {
    sandbox(|s| {
        let root = busybox_root(s, "root");
        for form in FORMS {
            let show = |options: &[&str]| {
                let script = "env | grep -E '^(A|B|C|EMPTY|HOME)=' | sort";
                sh(s, form, options, &root, script)
                    .env("A", "a")
                    .env("B", "b")
                    .env("HOME", "/h")
                    .run()
                    .code(0)
                    .out()
            };
            assert_eq!(show(&[]), "A=a\nB=b\nHOME=/h\n");
            assert_eq!(show(&["-e", "A=x y", "--env", "C=z=z"]), "A=x y\nB=b\nC=z=z\nHOME=/h\n");
            assert_eq!(show(&["-e", "EMPTY="]), "A=a\nB=b\nEMPTY=\nHOME=/h\n");
            assert_eq!(show(&["--clear-env", "-e", "PATH=/bin", "-e", "B"]), "B=b\nHOME=/root\n");
            assert_eq!(show(&["--clear-env", "-e", "PATH=/bin", "-e", "NOT_SET"]), "HOME=/root\n");
            // The last value counts.
            assert_eq!(show(&["-e", "A=1", "-e", "A=2"]), "A=2\nB=b\nHOME=/h\n");
            let ran = sh(s, form, &["-e", "=x"], &root, "echo ran").run();
            ran.code(125).stdout("").fails_as(TOOL, "");
        }
    });
}

#[test]
fn the_program_is_found_on_its_own_path() {
    sandbox(|s| {
        let root = busybox_root(s, "root");
        fs::create_dir(root.join("opt")).unwrap();
        fs::write(root.join("opt/tool"), "#!/bin/sh\necho tool \"$@\"\n").unwrap();
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(root.join("opt/tool"), executable).unwrap();
        for form in FORMS {
            let run = |options: &[&str], program: &[&str]| {
                s.jc(TOOL).args(form).args(options).arg(&root).arg("--").args(program).run()
            };
            run(&["-e", "PATH=/opt"], &["tool", "a b"]).code(0).stdout("tool a b\n");
            run(&["-w", "/opt"], &["./tool"]).code(0).stdout("tool\n");
            run(&["-e", "PATH=/bin"], &["tool"]).code(127).fails_as(TOOL, "tool");
            run(&["-e", "PATH=/opt"], &["sh"]).code(127).fails_as(TOOL, "sh");
            // A file that cannot be executed is passed over in the search of PATH.
            fs::write(root.join("tmp/tool"), "").unwrap();
            run(&["-e", "PATH=/tmp:/opt"], &["tool"]).code(0).stdout("tool\n");
            run(&["-e", "PATH=/tmp"], &["tool"]).code(126).fails_as(TOOL, "tool");
        }
    });
}

#[test]
fn descriptors_are_closed_unless_preserved() {
    sandbox(|s| {
        busybox_root(s, "root");
        fs::write(s.path("secret"), "secret\n").unwrap();
        for form in [&[][..], &["--upper", "tmpfs"]] {
            let form = form.join(" ");
            let sh = |preserve: &str, script: &str| {
                let line =
                    format!("exec 3<secret 4<secret 9<secret; exec {TOOL} {form} {preserve}");
                s.cmd("bash").args(["-c", &format!("{line} root -- {script}")]).run()
            };
            sh("", "ls /proc/self/fd").code(0).stdout("0\n1\n2\n3\n");
            sh("--preserve-fds 1", "cat /proc/self/fd/3").code(0).stdout("secret\n");
            sh("--preserve-fds=1", "ls /proc/self/fd").code(0).stdout("0\n1\n2\n3\n4\n");
            sh("--preserve-fds 2", "ls /proc/self/fd").code(0).stdout("0\n1\n2\n3\n4\n5\n");
        }
    });
}
