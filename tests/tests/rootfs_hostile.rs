//! jc-rootfs with images that have false directories. Each start succeeds or fails with a clear error, and makes,
//! mounts and changes nothing outside.

#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::net::UnixListener;

use jc_tests::volume::volume;
use jc_tests::{Sandbox, sandbox};
use rustix::fs::{XattrFlags, setxattr};
use rustix::process::Signal;

mod rootfs_support;
use rootfs_support::{in_layer, root};

/// Traps in place of a path. `%` stands for the path, and `$r` for the root.
const TRAPS: [(&str, &str); 13] = [
    ("a link to the host's", "ln -s /../../../../..% $r%"),
    ("an absolute link", "ln -s /srv/outside $r%"),
    ("a relative link", "ln -s ../../../../../../srv/outside $r%"),
    ("a link to a file", "ln -s /srv/outside/f $r%"),
    ("a dangling link", "ln -s /srv/outside/new $r%"),
    ("a looping link", "ln -s % $r%"),
    ("a magic link", "ln -s /proc/self/root/srv/outside $r%"),
    ("a magic link to another process", "ln -s /proc/1/root/srv/outside $r%"),
    ("a descriptor", "ln -s /proc/self/fd/7 $r%"),
    ("a directory", "mkdir $r%"),
    ("a file", "echo trap >$r%"),
    ("a fifo", "mkfifo $r%"),
    ("nothing", ":"),
];

/// The paths, the options that use them, and a check of the result for the payload. The comments name the known
/// attacks.
const PLACES: [(&str, &str, &str); 24] = [
    // A procfs mounted elsewhere, or another directory in place of /proc (CVE-2019-16884, -19921, CVE-2023-27561,
    // -28642).
    ("/proc", "--mask default", "read x </proc/self/stat && ! [ -s /proc/timer_list ]"),
    // Nodes and links made on the host (CVE-2026-41579).
    ("/dev", "", "echo >/dev/null && [ -L /dev/ptmx ]"),
    ("/dev", "--dev none -v file:/dev/shm/x", "[ -e /dev/shm/x ]"),
    // A file of the image is laid over a masked file (CVE-2025-31133).
    ("/dev/null", "--dev none --mask /etc/group", "! [ -s /etc/group ]"),
    // Standard input is connected to a file of the image (CVE-2026-88265).
    ("/dev/null", "--dev none", "! read x"),
    // A terminal is mounted or made on the host (CVE-2025-52565, CVE-2026-88264).
    ("/dev/pts", "--dev none --console-socket socket", ":"),
    (
        "/dev/console",
        "--dev none -v /dev/pts:/dev/pts:create --console-socket socket",
        "[ -c /dev/console ]",
    ),
    ("/dev/pts", "", "[ -c /dev/pts/ptmx ]"),
    ("/dev/shm", "--shm-size 1m", "[ -d /dev/shm ]"),
    ("/sys", "--mask default", "[ -d /sys/kernel ]"),
    ("/sys/fs/cgroup", "--sys none --tmpfs /sys/fs/cgroup", "[ -d /sys/fs/cgroup ]"),
    ("/etc", "-u root", ":"),
    // Users come from the host, or the file is a FIFO without a writer (CVE-2024-9676).
    ("/etc/passwd", "-u root", ":"),
    ("/etc/group", "-u root --group-add 4", ":"),
    ("/etc/resolv.conf", "-v file:/etc/resolv.conf", "read x </etc/resolv.conf && [ $x = bound ]"),
    // Directories are made and mounted outside, by the last component of the path or an earlier one (CVE-2021-30465,
    // CVE-2024-45310, CVE-2026-87766).
    ("/work", "-w /work", "[ -n \"$PWD\" ]"),
    ("/parent", "-w /parent/a/b", "[ -n \"$PWD\" ]"),
    ("/target", "-v dir:/target", "[ -e /target/bound ]"),
    ("/parent", "-v dir:/parent/a/b", "[ -e /parent/a/b/bound ]"),
    ("/parent", "-v file:/parent/a/f", "[ -e /parent/a/f ]"),
    ("/parent", "--tmpfs /parent/t", "[ -d /parent/t ]"),
    ("/parent", "--device /dev/null:/parent/null", "[ -c /parent/null ]"),
    // The mask covers another file than the named one (CVE-2025-31133 too).
    ("/secret", "--mask /secret", "! read x </secret && ! [ -e /secret/f ]"),
    ("/secret", "--ro-path /secret", ":"),
];

/// The names, types, sizes and contents of all files outside, and the mounts.
fn outside(s: &Sandbox) -> String {
    let script =
        "find outside dir file -printf '%p %y %s %m %U %T@\n' | sort; cat file dir/bound outside/f;
        ls -d /srv/* | grep -v /srv/trap; cat /proc/mounts; stat -c '%n %a %u %Z' /dev/null /dev/pts /dev/console
        ls /dev /dev/shm; cat /etc/passwd /etc/resolv.conf | cksum";
    s.sh(script).run().out()
}

fn attempt(s: &Sandbox, place: &str, trap: &str, options: &str, probe: &str, layered: bool) {
    let script = format!(
        "r=/srv/trap; rm -rf $r; cp -a root $r; mkdir -p $r$(dirname {place}); \
                          rm -rf $r{place}; {}",
        trap.replace('%', place)
    );
    s.sh(&script).run().code(0);
    let before = outside(s);
    let image = "find trap -printf '%p %y %l\n' | sort";
    let image_before = s.sh(image).run().out();
    let form = if layered { "--layer trap" } else { "--upper tmpfs trap" };
    // The caller has a directory of the host open.
    let line = format!("exec 7</srv/outside; exec jc-rootfs {options} {form} -- /bin/sh -c \"$0\"");
    let ran = s.cmd("bash").args(["-c", &line, probe]).run();
    match ran.status().code() {
        Some(0) => {}
        Some(125) => {
            let text = ran.err();
            assert!(!text.contains("panicked"), "{place}, {trap}\n{ran}");
            drop(ran.fails_as("jc-rootfs", ""));
        }
        _ => panic!("{place}, {trap}, {options}: neither right nor refused\n{ran}"),
    }
    assert_eq!(outside(s), before, "{place}, {trap}, {options}: something outside has changed");
    let image_after = s.sh(image).run().out();
    assert_eq!(image_after, image_before, "{place}, {trap}, {options}: the image has changed");
}

/// Makes a root with a few programs, and files outside that must not change.
fn precious(s: &Sandbox) {
    root(s, "root");
    s.sh("mkdir outside dir; echo precious >outside/f; echo bound >file; echo bound >dir/bound
        cd root/bin && for f in *; do case $f in busybox|sh|true|cat|ls) ;; *) rm $f;; esac; done")
        .run()
        .code(0);
}

/// Runs a test with a `/dev` of its own, since concurrent tests use that of the host.
fn with_own_dev(s: &Sandbox, test: impl FnOnce()) {
    let make = "mkdir d; mount -nt tmpfs -o mode=755 dev d; mkdir d/pts d/shm; cd /dev
        cp -a null zero full random urandom tty console ptmx /srv/d
        mount -n --rbind pts /srv/d/pts; mount -nt tmpfs shm /srv/d/shm; mount -n --move /srv/d /dev; rmdir /srv/d";
    s.cmd("sh").args(["-ec", make]).run().code(0);
    test();
    s.sh("umount -nl /dev").run().code(0);
}

/// Tests a share of the places, so that the tests run concurrently.
fn try_places(s: &Sandbox, share: usize) {
    precious(s);
    with_own_dev(s, || try_share(s, share));
}

fn try_share(s: &Sandbox, share: usize) {
    // The test needs only a listener, since it ignores the terminals.
    let _listener = UnixListener::bind(s.path("socket")).unwrap();
    for (n, (place, options, probe)) in PLACES.iter().enumerate() {
        if n % 3 == share {
            for (n, (_, trap)) in TRAPS.iter().enumerate() {
                attempt(s, place, trap, options, probe, n % 2 == 0);
            }
        }
    }
    fs::remove_file(s.path("socket")).unwrap();
}

/// Defines a test for each share of the places.
macro_rules! shares {
    ($($name:ident $share:expr),+) => {
        mod no_image_reaches_out_of_its_root {
            $(#[test]
            fn $name() {
                jc_tests::sandbox(|s| super::try_places(s, $share));
            })+
        }
    };
}

shares!(share_0 0, share_1 1, share_2 2);

/// A working directory that the kernel would find outside (CVE-2024-21626), and a program outside.
#[test]
fn no_descriptor_leads_out() {
    sandbox(|s| {
        precious(s);
        let run = |options: &str, program: &str| {
            let line = format!(
                "cd /srv/outside; exec 3</srv/outside 9</srv/outside/f; exec jc-rootfs {options} --layer /srv/root -- {program}"
            );
            s.cmd("bash").args(["-c", &line]).run()
        };
        for at in [
            "/proc/self/fd/3",
            "/proc/self/fd/4",
            "/proc/self/fd/6",
            "/proc/self/fd/8",
            "/proc/self/cwd",
            "/proc/1/cwd",
            "/proc/self/root/srv/outside",
            "/proc/1/root/srv/outside",
            "/proc/thread-self/fd/3",
            "/proc/self/task/1/fd/3",
            "/dev/fd/3",
            "/proc/self/fd/3/../..",
            "/proc/self/map_files",
        ] {
            let ran = run(
                &format!("-w {at}"),
                "sh -c 'cat f ./srv/file ../srv/file 2>/dev/null; ls /proc/self/fd'",
            );
            match ran.status().code() {
                Some(125) => drop(ran.fails_as("jc-rootfs", at)),
                _ => drop(ran.code(0).stdout("0\n1\n2\n3\n")),
            }
        }
        for program in ["/proc/self/fd/9", "/proc/self/fd/3/f", "/proc/1/root/srv/outside/f"] {
            let ran = run("", program);
            assert!(matches!(ran.status().code(), Some(126 | 127)), "{ran}");
        }
        assert_eq!(s.sh("ls outside").run().out(), "f\n");
    });
}

/// Attributes by which a layer or an upper directory would show other files.
#[test]
fn no_layer_shows_what_is_not_its_own() {
    sandbox(|s| {
        precious(s);
        s.sh("mkdir -p l/etc l/dir up work && echo >l/file; mkdir -p root/secret; echo secret >root/secret/f").run().code(0);
        for (path, name, value) in [
            ("l/dir", "trusted.overlay.redirect", "/secret"),
            ("l/file", "trusted.overlay.metacopy", ""),
            ("l/file", "trusted.overlay.redirect", "/secret/f"),
        ] {
            setxattr(s.path(path), name, value.as_bytes(), XattrFlags::CREATE).unwrap();
        }
        let script = "ls /dir; cat /file";
        let ran = in_layer(s, &["--layer", "l"], script).run();
        assert!(!ran.out().contains('f') && !ran.out().contains("secret"), "{ran}");
        // Names that an earlier container may have left there.
        for (name, other) in [("upper", "work"), ("work", "upper")] {
            for trap in ["ln -s /srv/outside", "ln -s outside", "echo x >", "mkfifo"] {
                let ends = if trap.ends_with('>') { trap.to_owned() } else { format!("{trap} ") };
                s.sh(&format!("rm -rf up; mkdir -p up/{other}; {ends}up/{name}")).run().code(0);
                let ran = in_layer(s, &["--upper", "up"], ":").run();
                ran.code(125).fails_as("jc-rootfs", &format!("open up/{name}"));
                assert_eq!(s.sh("ls outside").run().out(), "f\n");
            }
        }
    });
}

/// A second process, like one of another container, swaps entries of a shared volume, upper directory or root during
/// the start.
#[test]
fn no_race_leads_out() {
    sandbox(|s| {
        precious(s);
        with_own_dev(s, || race(s));
    });
}

fn race(s: &Sandbox) {
    let swap = |at: &str| {
        let script = format!(
                "while :; do mv -T {at} {at}.dir; ln -s /srv/outside {at}; rm {at}; mv -T {at}.dir {at}
                mv -T {at} {at}.dir; ln -s ../../../../../srv/outside {at}; rm {at}; mv -T {at}.dir {at}; done"
            );
        s.sh(&script).spawn()
    };
    s.sh("mkdir -p vol/x/y own/dev own/proc own/sys && cp -a root/. own && cp -a own up")
        .run()
        .code(0);
    let before = outside(s);
    let mut started = 0;
    for (at, options) in [
        ("vol/x", "-v vol:/v -v file:/v/x/y/f --layer root"),
        ("vol/x", "-v vol:/v --tmpfs /v/x/new/t --layer root"),
        ("vol/x", "-v vol:/v -w /v/x/new/w --layer root"),
        ("own/dev", "-v file:/dev/shm/f own"),
        ("own/proc", "--mask default own"),
        ("own/sys", "--mask default own"),
        ("own/etc", "-u root -v file:/etc/resolv.conf --mask /etc/group own"),
    ] {
        let swaps = swap(at);
        for _ in 0..60 * volume() {
            let line = format!("exec jc-rootfs {options} -- /bin/true");
            let ran = s.sh(&line).run();
            match ran.status().code() {
                Some(0) => started += 1,
                Some(125) => {}
                _ => panic!("{options}: neither right nor refused\n{ran}"),
            }
        }
        swaps.signal(Signal::KILL);
        drop(swaps.wait());
        s.sh(&format!("[ -e {at}.dir ] && {{ rm -f {at}; mv -T {at}.dir {at}; }}; :")).run();
        assert_eq!(outside(s), before, "{options}: something outside has changed");
    }
    assert!(started > 60, "only {started} have started");
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
            let ran = s.jc("jc-rootfs").args(["--layer", "root", "--", "true"]).run();
            ran.code(125).fails_as("jc-rootfs", error);
            s.sh("rm root/proc root/sys root/dev 2>/dev/null || :").run().code(0);
        }
        assert!(fs::read_dir(s.path("root")).unwrap().count() > 0);
    });
}
