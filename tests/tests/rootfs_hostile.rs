//! jc-rootfs: images that lie about their own directories. Each starts right or is refused with a
//! clear error, and nothing outside of it is made, mounted on or changed.

#![cfg(target_os = "linux")]

use std::fs;

use jc_tests::{Sandbox, sandbox};

mod rootfs_support;
use rootfs_support::root;

/// What is put in the place of a path; `%` stands for the path.
const TRAPS: [(&str, &str); 8] = [
    ("a link to the host's", "ln -s /../../../../..% $r%"),
    ("an absolute link", "ln -s /srv/outside $r%"),
    ("a relative link", "ln -s ../../../../../../srv/outside $r%"),
    ("a looping link", "ln -s % $r%"),
    ("a magic link", "ln -s /proc/self/root/srv/outside $r%"),
    ("a file", "echo trap >$r%"),
    ("a fifo", "mkfifo $r%"),
    ("nothing", ":"),
];

/// The paths, with the options that use them, and a probe of what the payload must find there.
const PLACES: [(&str, &str, &str); 10] = [
    ("/proc", "", "read x </proc/self/stat"),
    ("/dev", "", "echo >/dev/null"),
    ("/dev/null", "--dev none --mask /etc/group", "! [ -s /etc/group ]"),
    ("/dev/pts", "", "[ -c /dev/pts/ptmx ]"),
    ("/sys", "", "[ -d /sys/kernel ]"),
    ("/etc", "-u root", ":"),
    ("/etc/passwd", "-u root", ":"),
    ("/etc/resolv.conf", "-v file:/etc/resolv.conf", "read x </etc/resolv.conf && [ $x = bound ]"),
    ("/work", "-w /work", "[ -n \"$PWD\" ]"),
    ("/target", "-v dir:/target", "[ -e /target/bound ]"),
];

/// All that is outside: names, kinds, sizes and contents.
fn outside(s: &Sandbox) -> String {
    let script =
        "find outside dir file -printf '%p %y %s %m\\n' | sort; cat file dir/bound outside/f;
        ls -d /srv/*; cat /proc/mounts";
    s.sh(script).run().code(0).out()
}

fn attempt(s: &Sandbox, place: &str, trap: &str, options: &str, probe: &str, layered: bool) {
    let script = format!(
        "r=/srv/trap; rm -rf $r; cp -a root $r; mkdir -p $r$(dirname {place}); \
                          rm -rf $r{place}; {}",
        trap.replace('%', place)
    );
    s.sh(&script).run().code(0);
    let before = outside(s);
    let image = "find trap -printf '%p %y %l\\n' | sort";
    let image_before = s.sh(image).run().out();
    let form = if layered { ["--layer", "trap"] } else { ["--upper", "tmpfs"] };
    let mut cmd = s.jc("jc-rootfs").args(form).args(options.split_whitespace());
    if !layered {
        cmd = cmd.arg("trap");
    }
    let ran = cmd.args(["--", "/bin/sh", "-c", probe]).run();
    match ran.status().code() {
        Some(0) => {}
        Some(125) => {
            let text = ran.err();
            assert!(!text.contains("panicked"), "{place}, {trap}\n{ran}");
            drop(ran.fails_as("jc-rootfs", ""));
        }
        _ => panic!("{place}, {trap}: neither right nor refused\n{ran}"),
    }
    assert_eq!(outside(s), before, "{place}, {trap}: something outside has changed");
    assert_eq!(s.sh(image).run().out(), image_before, "{place}, {trap}: the image has changed");
}

#[test]
fn no_image_reaches_out_of_its_root() {
    jc_tests::sandbox_for(std::time::Duration::from_secs(180), |s| {
        root(s, "root");
        s.sh(
            "mkdir outside dir; echo precious >outside/f; echo bound >file; echo bound >dir/bound",
        )
        .run()
        .code(0);
        // Not hundreds of links for each.
        s.sh("cd root/bin && for f in *; do case $f in busybox|sh|true) ;; *) rm $f;; esac; done")
            .run()
            .code(0);
        for (place, options, probe) in PLACES {
            for (n, (_, trap)) in TRAPS.iter().enumerate() {
                attempt(s, place, trap, options, probe, n % 2 == 0);
            }
        }
    });
}

#[test]
fn the_kernels_own_directories_must_be_directories() {
    sandbox(|s| {
        root(s, "root");
        for (trap, error) in [
            ("ln -s /srv root/proc", "mount /proc: is a symbolic link in this root"),
            ("ln -s sys root/sys", "mount /sys: is a symbolic link in this root"),
            ("mkfifo root/dev", "mount /dev: is not a directory in this root"),
            ("echo >root/proc", "mount /proc: is not a directory in this root"),
        ] {
            s.sh(trap).run().code(0);
            s.jc("jc-rootfs")
                .args(["--layer", "root", "--", "true"])
                .run()
                .code(125)
                .stderr(&format!("jc-rootfs: {error}\n"));
            s.sh("rm root/proc root/sys root/dev 2>/dev/null || :").run().code(0);
        }
        assert!(fs::read_dir(s.path("root")).unwrap().count() > 0);
    });
}
