//! Payloads that trace and open visible processes of jc.

#![cfg(target_os = "linux")]

use std::fs;
use std::time::Duration;

use jc_tests::roots::busybox_root;
use jc_tests::{Ann, Running, Sandbox, sandbox, sandbox_for, workspace_dir};
use rustix::process::Signal;

/// The number of programs that a test starts during an attack. `JC_TESTS_STARTS` sets another number.
fn starts() -> usize {
    std::env::var("JC_TESTS_STARTS").ok().and_then(|word| word.parse().ok()).unwrap_or(100)
}

const LIMIT: Duration = Duration::from_secs(600);

/// Makes a root that has the attacker as a program, and a file of the host that no container shows.
fn attackers_root(s: &Sandbox) {
    busybox_root(s, "root");
    let source = workspace_dir().join("tests/tests/rootfs_support/attack.c");
    s.cmd("cc").args(["-static", "-O1", "-o", "root/bin/attack"]).arg(source).run().code(0);
    s.sh("echo precious >precious").run().code(0);
}

/// Starts a container whose payload attacks all visible processes.
fn attack(s: &Sandbox, options: &str) -> Running {
    let line = "exec jc-run --name A --network none --rootfs root";
    let mut attacker = s.sh(&format!("{line} {options} -- attack /srv/precious")).spawn();
    attacker.wait_for("ready");
    attacker
}

/// Runs a command line many times, with a payload that is PID 1 since no pipe is behind it, and then ends the attacker.
/// Returns the lines that the attacker has written.
fn results(s: &Sandbox, attacker: Running, line: &str) -> Vec<String> {
    let many =
        format!("for i in $(seq {}); do {line} >/dev/null 2>>errors || exit; done", starts());
    s.sh(&many).timeout(LIMIT).run().code(0);
    s.sh("cat errors").run().stdout("");
    attacker.signal(Signal::TERM);
    let out = attacker.wait().code(143).out();
    let lines: Vec<String> = out.lines().skip(1).map(str::to_owned).collect();
    assert!(!lines.is_empty(), "the attack has no effect: {out}");
    lines
}

/// CVE-2019-5736: jc-rootfs executes a file of the host until the payload is executed.
#[test]
fn a_neighbour_of_default_capabilities_cannot_open_or_trace_the_links() {
    sandbox_for(LIMIT, |s| {
        attackers_root(s);
        let run = "jc-run --network none --rootfs root";
        for (options, line) in [
            ("--pid host", format!("{run} -- true")),
            ("--pid host -u web", format!("{run} -u web -- true")),
            ("", format!("{run} --pid container:A -- true")),
        ] {
            let attacker = attack(s, options);
            assert_eq!(results(s, attacker, &line), ["traces a program"], "{options} {line}");
        }
    });
}

/// A payload that may trace sees the PID 1 of `--init`.
#[test]
fn an_init_has_nothing_that_the_payload_lacks() {
    sandbox(|s| {
        busybox_root(s, "root");
        s.sh("echo precious >precious; ln -s busybox root/bin/tr").run().code(0);
        for options in [
            "--cap-add SYS_PTRACE",
            "--cap-add SYS_PTRACE,SYS_ADMIN",
            "--cap-add SYS_PTRACE -u web",
        ] {
            let inside = |script: &str| {
                let line = format!("jc-run --init {options} --network none --rootfs root");
                let cmd = s.cmd("sh").args(["-c", &format!("{line} -- sh -c \"$0\""), script]);
                cmd.env("SECRET", "of the host").run()
            };
            let same =
                "grep -E '^(Uid|Gid|Cap|NoNew|Seccomp:)' /proc/$P/status; readlink /proc/$P/root";
            let view = format!("echo $$; for P in 1 $$; do {same}; done");
            let out = inside(&view).code(0).out();
            let (own, views) = out.split_once('\n').unwrap();
            assert_eq!(own, "2");
            if options.ends_with("web") {
                continue;
            }
            let lines: Vec<&str> = views.lines().collect();
            let (first, payload) = lines.split_at(lines.len() / 2);
            assert_eq!(first, payload, "{options}");
            assert!(lines.len() > 10, "{out}");
            inside("cat /proc/1/root/srv/precious").code(1);
            let written = inside("echo x >/proc/1/exe").code(1);
            assert!(written.err().contains("Read-only file system"), "{written}");
            let shown = inside(
                "cat /proc/1/cmdline /proc/1/environ /proc/1/comm | tr '\\0' '\\n'
                 for fd in /proc/1/fd/*; do readlink $fd; done",
            );
            let shown = shown.code(0).out();
            assert!(shown.starts_with("jc-init\n") && shown.contains("\njc-init\n"), "{shown}");
            for host in ["/run/jc", "of the host", "--rootfs", "started"] {
                assert!(!shown.contains(host), "{host}: {shown}");
            }
        }
    });
}

/// CVE-2026-41163: a payload without root has the same user as the visible links.
#[test]
fn a_payload_never_traces_the_links_of_its_user() {
    sandbox_for(LIMIT, |s| {
        let ann = Ann::new(s);
        attackers_root(s);
        s.sh("cp -a root ann/root && chown -R 4321:4321 ann").run().code(0);
        // The attacker is in the PID namespace of the links, and has all capabilities in a user namespace.
        let line = "exec jc-unshare -U --map-root -- jc-unshare -uiC -- jc-rootfs root --";
        let attacker = ann.sh(&format!("{line} attack /srv/precious")).timeout(LIMIT);
        let mut attacker = attacker.spawn();
        attacker.wait_for("ready");
        let run = "jc-run --network none --rootfs root -- true";
        let many = format!("for i in $(seq {}); do {run} || exit; done", starts());
        ann.sh(&many).timeout(LIMIT).run().code(0).stderr("");
        attacker.signal(Signal::TERM);
        attacker.wait().killed_by(Signal::TERM).stdout("ready\n");
    });
}

/// A process that is stopped for ever, and that its tracer has to reap. PID 1 of the test reaps orphans, as on every
/// system. A machine that pauses for two seconds ends a jc-exec that no tracer holds.
#[test]
fn a_tracer_inside_cannot_hold_up_jc_exec() {
    sandbox_for(LIMIT, |s| {
        attackers_root(s);
        let script = "
            run='jc-run -d --rm --network none --rootfs root'
            id=$($run --cap-add SYS_PTRACE -- attack /srv/precious hold)
            code=0
            is_held() { jc-logs $id | grep -q seizes; }
            while [ $code = 0 ] || { [ $code = 124 ] && ! is_held; }; do
                timeout -k 60 2 jc-exec $id true; code=$?
            done
            echo $code
            jc-logs $id | grep -c seizes
            jc-stop $id";
        fs::write(s.path("script"), script).unwrap();
        let init = ["-f", "-p", "--mount-proc", "sh", "-c", "timeout 120 sh script; true"];
        s.cmd("unshare").args(init).timeout(LIMIT).run().code(0).stdout("124\n1\n").stderr("");
    });
}

/// The lines about processes of jc that the attacker has stopped. Each must have the confinement of the payload: the
/// capabilities `caps`, no new privileges, a filter, and the root of the container.
fn require_confined(results: &[String], caps: &str) {
    for line in results {
        let confined = format!("seizes jc-rootfs {caps} 1 2 container");
        let allowed = [confined.as_str(), "traces a program", "opens jc-rootfs"];
        assert!(allowed.contains(&line.as_str()), "{results:?}");
    }
}

/// The eleven capabilities of the default and SYS_PTRACE (capabilities(7)).
const WITH_PTRACE: &str = "00000000800c05fb";

/// CVE-2016-9962: jc-exec, and a container that joins a PID namespace, are visible to a payload that may trace every
/// process.
#[test]
fn a_newcomer_to_a_pid_namespace_has_nothing_to_give_to_a_tracer() {
    sandbox_for(LIMIT, |s| {
        attackers_root(s);
        let joins = "jc-run --cap-add SYS_PTRACE --network none --rootfs root --pid container:A";
        for line in ["jc-exec A true", "jc-exec -w /tmp A true", &format!("{joins} -- true")] {
            let attacker = attack(s, "--cap-add SYS_PTRACE");
            require_confined(&results(s, attacker, line), WITH_PTRACE);
        }
    });
}

/// jc-exec runs the program with the capabilities of its container, so processes with the same capabilities may trace
/// it between its change of credentials and execve(2).
#[test]
fn a_payload_of_default_capabilities_never_traces_jc_exec() {
    sandbox_for(LIMIT, |s| {
        attackers_root(s);
        for line in ["jc-exec A true", "jc-exec A nothing; [ $? = 127 ]"] {
            let attacker = attack(s, "");
            let many = format!("{{ {line}; }} 2>/dev/null; jc-exec A true");
            assert_eq!(results(s, attacker, &many), ["traces a program"], "{line}");
        }
    });
}

/// CVE-2025-46416: abstract sockets have no file, and so no permissions.
#[test]
fn abstract_sockets_are_those_of_the_network_namespace() {
    sandbox(|s| {
        busybox_root(s, "root");
        let name = rustix::net::SocketAddrUnix::new_abstract_name(b"jc-of-the-host").unwrap();
        let kinds = (rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM);
        let socket = rustix::net::socket(kinds.0, kinds.1, None).unwrap();
        rustix::net::bind(&socket, &name).unwrap();
        for (network, count) in [("none", "0\n"), ("bridge", "0\n"), ("host", "1\n")] {
            let line = format!("jc-run --network {network} --rootfs root -- sh -c");
            let line = format!("{line} 'grep -c jc-of-the-host /proc/net/unix; true'");
            s.sh(&line).run().code(0).stdout(count);
        }
    });
}
