//! jc-landlock: what a rule allows works, and all else of its category is denied.

#![cfg(target_os = "linux")]

use jc_tests::roots::busybox_root;
use jc_tests::{Sandbox, sandbox, skip};

fn check(s: &Sandbox, lines: &[(&str, i32, &str)]) {
    for (line, code, text) in lines {
        let ran = s.sh(&format!("exec jc-landlock {line}")).run();
        let shown = format!("{line}\n{ran}");
        assert_eq!(ran.status().code(), Some(*code), "{shown}");
        assert!(ran.out().contains(text) || ran.err().contains(text), "{shown}");
    }
}

fn has_landlock(s: &Sandbox) -> bool {
    let ran = s.sh("jc-landlock --rx / --scope signal,abstract --connect none -- true").run();
    ran.status().success()
}

#[test]
fn files_have_the_access_of_their_option() {
    sandbox(|s| {
        if !has_landlock(s) {
            skip!("a kernel with version 6 of Landlock");
        }
        s.sh("mkdir in out && echo text > in/f && cp in/f out/f && cp /bin/busybox in/sh")
            .run()
            .code(0);
        s.sh("cp /bin/busybox in/cat").run().code(0);
        check(
            s,
            &[
                ("--rx /usr --rx /bin --rx /lib --ro in -- cat in/f", 0, "text"),
                ("--rx /usr --rx /bin --rx /lib --ro in -- cat out/f", 1, "Permission denied"),
                (
                    "--rx /usr --rx /bin --rx /lib --ro in -- sh -c 'echo > in/f'",
                    2,
                    "Permission denied",
                ),
                ("--rx /usr --rx /bin --rx /lib --ro in/f -- cat in/f", 0, "text"),
                (
                    "--rx / --rw in -- sh -c 'echo x > in/g && mv in/g in/h && rm in/h && cat in/f'",
                    0,
                    "text",
                ),
                ("--rx / --rw in -- sh -c 'echo x > out/g'", 2, "Permission denied"),
                ("--rx /usr --rx /bin --rx /lib --rw in -- in/cat in/f", 126, "Permission denied"),
                ("--rx /usr --rx /bin --rx /lib --rwx in -- in/cat in/f", 0, "text"),
                ("--rx / -- sh -c 'echo > /dev/null && head -c 1 /dev/zero | wc -c'", 0, "1"),
                ("--ro / -- true", 126, "exec true: Permission denied"),
                // The children of the program are restricted too.
                ("--rx / -- sh -c 'sh -c \"echo > in/f\"'", 2, "Permission denied"),
            ],
        );
    });
}

#[test]
fn ports_and_scopes_are_restricted_alone() {
    sandbox(|s| {
        if !has_landlock(s) {
            skip!("a kernel with version 6 of Landlock");
        }
        s.sh("ip link set lo up").run().code(0);
        let connect = "bash -c 'exec 3<>/dev/tcp/127.0.0.1/9'";
        check(
            s,
            &[
                (&format!("--connect none -- {connect}"), 1, "Permission denied"),
                (&format!("--connect 443 -- {connect}"), 1, "Permission denied"),
                (&format!("--connect 9 -- {connect}"), 1, "Connection refused"),
                (&format!("--scope signal -- {connect}"), 1, "Connection refused"),
                ("--connect none -- sh -c 'echo text > file && cat file'", 0, "text"),
            ],
        );
        let outside = s.cmd("sleep").arg("1000").spawn();
        let pid = outside.pid();
        check(
            s,
            &[
                (&format!("--scope signal -- sh -c 'kill -0 {pid}'"), 1, "Operation not permitted"),
                (&format!("--connect none -- sh -c 'kill -0 {pid}'"), 0, ""),
                ("--scope signal -- sh -c 'sleep 1000 & kill $!'", 0, ""),
            ],
        );
        outside.signal(rustix::process::Signal::KILL);
        outside.wait();
    });
}

#[test]
fn a_line_that_cannot_hold_is_refused() {
    sandbox(|s| {
        check(
            s,
            &[
                ("-- true", 125, "no restriction given"),
                ("--ro / --", 125, "no program"),
                ("--ro /none -- true", 125, "open /none: No such file"),
                ("--connect x -- true", 125, "not a port or none"),
                ("--ro / -- jc-rootfs / -- true", 125, "rules for files forbid its mounts"),
                (
                    "--ro / -- jc-unshare -p -- jc-rootfs / -- true",
                    125,
                    "jc-rootfs --landlock rx=/usr",
                ),
            ],
        );
    });
}

#[test]
fn rules_hold_behind_a_chain() {
    sandbox(|s| {
        if !has_landlock(s) {
            skip!("a kernel with version 6 of Landlock");
        }
        let line = "jc-landlock --connect none --scope signal -- jc-unshare -p -- jc-rootfs / -- \
            sh -c 'echo $$; exec 3<>/dev/tcp/127.0.0.1/9'";
        let ran = s.cmd("bash").args(["-c", &line.replace("sh -c", "bash -c")]).run();
        assert!(ran.out() == "1\n" && ran.err().contains("Permission denied"), "{ran}");
        let user = "setpriv --reuid 65534 --regid 65534 --clear-groups -- \
            jc-landlock --rx / -- sh -c 'id -u; echo > /tmp/x'";
        let ran = s.sh(user).run();
        assert!(ran.out() == "65534\n" && ran.err().contains("Permission denied"), "{ran}");
    });
}

/// The rules of `jc-rootfs --landlock` hold for the payload alone, behind all mounts, and for programs of jc-exec.
#[test]
fn the_last_step_of_a_root_applies_rules() {
    sandbox(|s| {
        if !has_landlock(s) {
            skip!("a kernel with version 6 of Landlock");
        }
        busybox_root(s, "root");
        s.sh("mkdir -p root/data root/other; ip link set lo up").run().code(0);
        let rules = "--landlock rx=/ --landlock rw=/data";
        let write = "echo x > /data/f && echo written; echo x > /other/f; echo $?";
        for options in [
            "--upper tmpfs",
            "--read-only --tmpfs /data",
            "-u 33:33 --tmpfs /data",
            "--cap-drop ALL --no-new-privs --seccomp default --tmpfs /data",
        ] {
            let line = format!("jc-rootfs {options} {rules} root -- sh -c '{write}'");
            let ran = s.sh(&line).run();
            assert_eq!(ran.out(), "written\n1\n", "{line}\n{ran}");
            assert!(
                ran.err().contains("/other/f: Permission denied") || options.contains("read-only"),
                "{ran}"
            );
        }
        for (options, payload, code, text) in [
            (rules, "grep NoNewPrivs /proc/self/status", 0, "NoNewPrivs:\t1"),
            ("--landlock connect=none", "nc 127.0.0.1 9", 1, "Permission denied"),
            ("--landlock connect=9", "nc 127.0.0.1 9", 1, "Connection refused"),
            ("--landlock ro=/", "true", 126, "Permission denied"),
            ("--landlock ro=/none", "true", 125, "open /none: No such file"),
            ("--landlock connect=x", "true", 125, "not a port or none"),
            ("--landlock all", "true", 125, "not ro=, rx=, rw= or rwx=PATH"),
        ] {
            let ran = s.sh(&format!("jc-rootfs {options} root -- sh -c '{payload}'")).run();
            assert_eq!(ran.status().code(), Some(code), "{options}\n{ran}");
            assert!(ran.out().contains(text) || ran.err().contains(text), "{options}\n{ran}");
        }
        // PID 1 of --init, and a program of jc-exec.
        for init in ["", "--init"] {
            let run = format!(
                "jc-run -d --name l {init} --network none {rules} --rootfs root -- sleep 1000"
            );
            s.sh(&run).run().code(0);
            let ran = s.sh(&format!("jc-exec l sh -c '{write}'")).run();
            assert_eq!(ran.out(), "written\n1\n", "{init}\n{ran}");
            s.sh("jc-rm -f l").run().code(0);
        }
        s.wait_for_no_process();
    });
}
