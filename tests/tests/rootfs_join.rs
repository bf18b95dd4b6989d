//! jc-rootfs: the entry of a running container, terminals, and the attributes of a payload.

#![cfg(target_os = "linux")]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

use jc_tests::descriptors::receive;
use jc_tests::pty::Terminal;
use jc_tests::volume::volume;
use jc_tests::{Ann, Running, Sandbox, sandbox, skip, wait_until, workspace_dir};
use rustix::process::{Signal, WaitOptions, wait};

mod rootfs_support;
use rootfs_support::{in_layer, root};

/// Starts a container that waits for the file `/go/on`. Returns its PID in this PID namespace.
fn container(s: &Sandbox, front: &[&str]) -> (Running, String) {
    fs::create_dir_all(s.path("go")).unwrap();
    let script = "touch /mark; echo ready; until [ -e /go/on ]; do sleep 0.01; done";
    let words =
        ["-puiC", "--", "jc-rootfs", "-v", "go:/go", "--layer", "root", "--", "sh", "-c", script];
    let (first, rest) = match front.split_first() {
        Some((first, rest)) => (*first, [rest, &["jc-unshare"], &words].concat()),
        None => ("jc-unshare", words.to_vec()),
    };
    let mut waits = s.cmd(first).args(rest).spawn();
    waits.wait_for("ready");
    let pid = s.sh("pgrep -f '^sh -c touch /mark' | head -n 1").run().code(0).out();
    (waits, pid.trim().to_owned())
}

#[test]
fn a_running_container_is_entered() {
    sandbox(|s| {
        root(s, "root");
        let (waits, pid) = container(s, &[]);
        let join = |options: &[&str], script: &str| {
            s.jc("jc-rootfs")
                .args(["--join", &pid])
                .args(options)
                .args(["--", "sh", "-c", script])
                .run()
        };
        join(&[], "ls -d /mark; pwd; echo x >/new").code(0).stdout("/mark\n/\n");
        join(&["-u", "web", "-w", "/tmp", "-e", "A=1"], "id -u; pwd; echo $A")
            .code(0)
            .stdout("33\n/tmp\n1\n");
        let kind = format!("{pid}:pid");
        s.jc("jc-unshare")
            .args(["--join", &kind, "--", "jc-rootfs", "--join", &pid, "--cap-drop=ALL"])
            .args(["--no-new-privs", "--seccomp=default", "--", "sh", "-c"])
            .arg("grep -E '^(CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | cut -f2")
            .run()
            .code(0)
            .stdout("0000000000000000\n1\n2\n");
        // With the other namespaces joined, the procfs shows the same processes.
        let kinds = format!("{pid}:pid,uts,ipc,cgroup");
        s.jc("jc-unshare")
            .args(["--join", &kinds, "--", "jc-rootfs", "--join", &pid, "--", "sh", "-c"])
            .arg("cat /proc/1/cmdline | tr '\\0' ' ' | cut -c 1-10; cat /new; test -e /proc/$$/exe")
            .run()
            .code(0)
            .stdout("sh -c touc\nx\n");
        join(&["--layer", "root"], ":").code(125).fails_as("jc-rootfs", "--layer");
        s.jc("jc-rootfs")
            .args(["--join", "99999", "--", "true"])
            .run()
            .code(125)
            .stderr("jc-rootfs: join 99999: no such process\n");
        fs::write(s.path("go/on"), "").unwrap();
        waits.wait().code(0);
    });
}

#[test]
fn the_hosts_program_cannot_be_reached_by_a_payload() {
    sandbox(|s| {
        root(s, "root");
        // The program executes itself, behind a link, and as an interpreter.
        s.sh("ln -s /proc/self/exe root/bin/me; printf '#!/proc/self/exe\\n' >root/bin/script;
              printf '#! /bin/me\\n' >root/bin/again; chmod +x root/bin/script root/bin/again")
            .run()
            .code(0);
        for program in ["/proc/self/exe", "me", "/bin/me", "script", "again"] {
            let cmd = s.jc("jc-rootfs").args(["--layer", "root", "--", program, "--version"]);
            cmd.run().code(126).fails_as("jc-rootfs", "leads to the host's jc-rootfs");
        }
        // A process that enters a container executes a read-only mount.
        let (waits, pid) = container(s, &[]);
        let kind = format!("{pid}:pid");
        let join = |program: &str| {
            let words =
                ["--join", &kind, "--", "jc-rootfs", "--join", &pid, "--", program, "--version"];
            s.jc("jc-unshare").args(words).run()
        };
        join("script").code(126).fails_as("jc-rootfs", "leads to the host's jc-rootfs");
        fs::write(s.path("go/on"), "").unwrap();
        waits.wait().code(0);
    });
}

#[test]
fn a_payload_starts_clean() {
    sandbox(|s| {
        root(s, "root");
        let status = "grep -E '^Sig(Blk|Ign):' /proc/self/status | cut -f2";
        // The caller ignores and blocks signals.
        let words = ["-c", "trap '' INT USR1 PIPE; exec \"$@\"", "sh"];
        s.cmd("sh")
            .args(words)
            .args(["jc-rootfs", "--layer", "root", "--", "sh", "-c", status])
            .run()
            .code(0)
            .stdout("0000000000000000\n0000000000000000\n");
        // The payload has its own session keyring.
        s.cmd("strace")
            .args([
                "-e",
                "trace=keyctl",
                "-o",
                "trace",
                "jc-rootfs",
                "--layer",
                "root",
                "--",
                "true",
            ])
            .run()
            .code(0);
        let trace = fs::read_to_string(s.path("trace")).unwrap();
        assert!(trace.starts_with("keyctl(KEYCTL_JOIN_SESSION_KEYRING, NULL) = "), "{trace}");
        // The same result with a file as the working directory, or one outside of the root.
        let ran = in_layer(s, &["-w", "/proc/self/cwd"], "pwd").run();
        let hint = "\njc-rootfs: hint: a magic link of procfs leads outside of all paths\n";
        assert!(ran.err().ends_with(hint), "{ran}");
        ran.code(125).fails_as("jc-rootfs", "open /proc/self/cwd: ");
        in_layer(s, &["-w", "/etc/passwd"], ":")
            .run()
            .code(125)
            .fails_as("jc-rootfs", "/etc/passwd");
    });
}

#[test]
fn a_session_is_new_when_asked() {
    sandbox(|s| {
        root(s, "root");
        let script = "cut -d' ' -f1,6 /proc/self/stat; cut -d' ' -f6 /proc/$$/stat; echo $$";
        let own = |options: &[&str]| {
            let out = in_layer(s, options, script).run().code(0).out();
            let fields: Vec<&str> = out.split_whitespace().collect();
            fields[2] == fields[3]
        };
        assert!(!own(&[]));
        assert!(own(&["--new-session"]));
        in_layer(s, &["--new-session"], "exit 7").run().code(7);
        in_layer(s, &["--new-session"], "kill -9 $$").run().code(137);
        // A join without a PID namespace leaves no waiting process.
        s.jc("jc-unshare")
            .args([
                "-p",
                "--",
                "jc-rootfs",
                "--new-session",
                "--layer",
                "root",
                "--",
                "sh",
                "-c",
                "echo $$",
            ])
            .run()
            .code(0)
            .stdout("1\n");
    });
}

#[test]
fn a_console_goes_to_the_socket() {
    sandbox(|s| {
        root(s, "root");
        let listener = UnixListener::bind(s.path("socket")).unwrap();
        let script = "tty; ls -l /dev/console | cut -c1; stat -c %u $(tty); read word; echo got $word; exec </dev/tty";
        let running = in_layer(s, &["--console-socket", "socket", "-u", "web"], script).spawn();
        let (stream, _) = listener.accept().unwrap();
        let mut master = fs::File::from(receive(&stream).1);
        // The terminal echoes input between outputs.
        let mut shown = Vec::new();
        while !shown.ends_with(b"33\r\n") {
            let mut byte = [0];
            master.read_exact(&mut byte).unwrap();
            shown.extend(byte);
        }
        master.write_all(b"hello\n").unwrap();
        // The read ends with EIO when the terminal is closed.
        let _: std::io::Result<usize> = master.read_to_end(&mut shown);
        running.wait().code(0).stdout("");
        let shown = String::from_utf8(shown).unwrap();
        assert!(shown.contains("/dev/pts/0\r\nc\r\n33\r\n"), "{shown}");
        assert!(shown.contains("got hello\r\n"), "{shown}");
        in_layer(s, &["--console-socket", "none"], ":")
            .run()
            .code(125)
            .stderr("jc-rootfs: connect none: No such file or directory\n");
    });
}

/// A payload with all capabilities in its user namespace may trace every visible process of that user and namespace
/// (CVE-2016-9962).
#[test]
fn no_payload_sees_the_host_through_a_process_that_joins() {
    sandbox(|s| {
        let ann = Ann::new(s);
        root(s, "ann/own");
        let source = workspace_dir().join("tests/tests/rootfs_support/peek.c");
        s.cmd("cc").args(["-static", "-O1", "-o", "ann/own/bin/peek"]).arg(source).run().code(0);
        s.sh("chown -R 4321:4321 ann; echo precious >precious").run().code(0);
        let chain = "exec jc-unshare -U --map-root -- jc-unshare -puiC -- jc-rootfs own --";
        let mut peeks =
            ann.sh(&format!("{chain} sh -c 'echo ready; exec peek /srv/precious'")).spawn();
        peeks.wait_for("ready");
        let pid = s.sh("until pgrep -x peek; do sleep 0.01; done").run().code(0).out();
        let pid = pid.trim();
        for _ in 0..60 * volume() {
            let join = format!(
                "jc-unshare --join {pid}:user,uts,ipc,cgroup -- jc-rootfs --join {pid} -- sh -c 'echo $(($$ > 1))'"
            );
            ann.sh(&join).run().code(0).stdout("1\n").stderr("");
        }
        // The payload sees a process that has joined its namespaces.
        let before = peeks.stdout_so_far().lines().count();
        let join = format!("jc-unshare --join {pid}:user,pid -- sleep 100");
        let joined = ann.sh(&join).spawn();
        wait_until("the newcomer", || peeks.stdout_so_far().lines().count() > before);
        s.cmd("kill").args(["-9", pid]).run().code(0);
        joined.wait();
        let out = peeks.wait().out();
        let seen: Vec<&str> = out.lines().skip(1).collect();
        assert!(seen.iter().all(|line| !line.contains("jc-rootfs")), "{out}");
        assert!(!seen.is_empty() && seen.len() <= 2, "{out}");
    });
}

/// The process joins the PID namespace too. Signals, exit codes and death are those of a waiting link.
#[test]
fn a_process_that_joins_is_one_of_the_container() {
    sandbox(|s| {
        root(s, "root");
        let (waits, pid) = container(s, &[]);
        let join = |options: &[&str], script: &str| {
            let words = ["--join", &pid];
            s.jc("jc-rootfs").args(words).args(options).args(["--", "sh", "-c", script])
        };
        join(&[], "tr '\\0' ' ' </proc/1/cmdline | cut -c 1-10; test -e /proc/$$ && exit 7")
            .run()
            .code(7)
            .stdout("sh -c touc\n");
        join(&["-u", "web"], "kill -9 $$").run().code(137);
        join(&["--new-session"], "test $(cut -d' ' -f6 /proc/$$/stat) = $$").run().code(0);
        for options in [&[][..], &["-u", "web"], &["--new-session"]] {
            let mut running =
                join(options, "trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done")
                    .spawn();
            running.wait_for("ready");
            running.signal(Signal::TERM);
            running.wait().code(9);
            let mut running = join(options, "echo ready; exec sleep 1000").spawn();
            running.wait_for("ready");
            running.signal(Signal::KILL);
            running.wait().killed_by(Signal::KILL);
            // The orphan of the killed link belongs to the PID 1 of the test.
            while s.processes().iter().any(|p| p.contains("sleep 1000")) {}
            while let Ok(None) = wait(WaitOptions::NOHANG) {}
        }
        fs::write(s.path("go/on"), "").unwrap();
        waits.wait().code(0);
        s.wait_for_no_process();
    });
}

/// A payload had time to prepare its files for a process that joins.
#[test]
fn a_hostile_container_is_entered_or_refused() {
    sandbox(|s| {
        root(s, "root");
        fs::create_dir(s.path("outside")).unwrap();
        fs::write(s.path("outside/f"), "root:x:0:0::/:/bin/sh\nevil:x:0:0::/:/bin/sh\n").unwrap();
        let before = s
            .sh("find outside file /dev -xdev -printf '%p %s %T@\\n'; cat /proc/mounts")
            .run()
            .out();
        let (waits, pid) = container(s, &[]);
        let inside = |script: &str| {
            s.jc("jc-rootfs").args(["--join", &pid, "--", "sh", "-c", script]).run().code(0);
        };
        for trap in [
            "ln -s /../../../srv/outside/f",
            "ln -s /proc/1/root/srv/outside/f",
            "ln -s /proc/self/exe",
            "mkfifo",
            "mkdir",
            "mknod -m 666 % c 1 5; :",
        ] {
            for place in ["/etc/passwd", "/etc/group", "/work"] {
                let make = if trap.contains('%') {
                    trap.replace('%', place)
                } else {
                    format!("{trap} {place}")
                };
                inside(&format!("rm -rf {place}; {make}"));
                let join = s.jc("jc-rootfs").args(["--join", &pid, "-u", "evil", "-w", "/work/w"]);
                let ran = join.args(["--", "true"]).run();
                ran.code(125).stdout("").fails_as("jc-rootfs", "");
            }
        }
        inside("rm -rf /etc/passwd /etc/group /work");
        let after = s
            .sh("find outside file /dev -xdev -printf '%p %s %T@\\n'; cat /proc/mounts")
            .run()
            .out();
        assert_eq!(before, after);
        fs::write(s.path("go/on"), "").unwrap();
        waits.wait().code(0);
    });
}

/// A payload on the terminal of the caller injects input by TIOCSTI (CVE-2017-5226).
#[test]
fn a_new_session_keeps_a_payload_from_typing_for_its_caller() {
    sandbox(|s| {
        if fs::read_to_string("/proc/sys/dev/tty/legacy_tiocsti").is_ok_and(|on| on.trim() == "0") {
            skip!("this kernel refuses TIOCSTI to everybody");
        }
        root(s, "root");
        let source = workspace_dir().join("tests/tests/rootfs_support/probe.c");
        s.cmd("cc").args(["-static", "-O1", "-o", "root/bin/probe"]).arg(source).run().code(0);
        // The address is invalid: the call fails before or after a look at it.
        let line = format!("native {} 1 {} 8", nix::libc::SYS_ioctl, nix::libc::TIOCSTI);
        let type_in = |options: &[&str]| {
            let script = format!("echo {line} | probe");
            let cmd = in_layer(s, &[&["--cap-drop", "ALL"], options].concat(), &script);
            Terminal::start(cmd).wait().1
        };
        assert!(type_in(&[]).contains("Bad address"));
        assert!(type_in(&["--new-session"]).contains("Operation not permitted"));
    });
}
