//! Programs that change their own process and execute the rest, in front of jc-unshare and behind it: their effect is
//! the same as with a plain program.

#![cfg(target_os = "linux")]

use std::os::unix::process::ExitStatusExt;

use jc_tests::{Ran, Sandbox, require, sandbox};
use rustix::process::Signal;

/// Chains with a procfs in which the program can find itself.
const CHAINS: [&str; 4] = [
    "jc-unshare -u --",
    "jc-unshare -pm --mount-proc --",
    "jc-unshare -pm --mount-proc --init --",
    "jc-unshare --all -r --mount-proc --",
];

/// Compares the output of a program in front of each chain and behind it with the output without a chain.
#[track_caller]
fn composes(s: &Sandbox, before: &str, payload: &str) {
    let run = |line: &str| s.cmd("bash").args(["-c", line]).input("in\n").run();
    let plain = run(&format!("{before} {payload}"));
    for chain in CHAINS {
        for line in [format!("{before} {chain} {payload}"), format!("{chain} {before} {payload}")] {
            let ran = run(&line);
            assert_eq!(seen(&ran), seen(&plain), "{line}\n{plain}{ran}");
        }
    }
}

/// The result that a shell sees.
fn seen(ran: &Ran) -> (Option<i32>, String, String) {
    let status = ran.status();
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    (code, ran.out(), ran.err())
}

/// A script that ends when it is killed.
const SLEEP: &str = "sh -c 'read -r x; echo $x; exec sleep 1000'";

#[test]
fn timeout_composes() {
    sandbox(|s| {
        composes(s, "timeout 1", SLEEP);
        composes(s, "timeout 20", "sh -c 'cat; exit 3'");
        composes(s, "timeout --preserve-status -s INT 1", SLEEP);
        composes(s, "timeout -k 0.1 1", "sh -c \"trap '' TERM; sleep 1000; sleep 1000\"");
        // timeout(1) signals its child and then the whole group, so a forwarded signal may arrive twice.
        let script = "trap \"trap : TERM; echo told; exit 9\" TERM; sleep 1000 & wait";
        composes(s, "timeout 0.3", &format!("sh -c '{script}'"));
    });
}

#[test]
fn timeout_composes_if_it_kills_or_stays_in_the_foreground() {
    sandbox(|s| {
        composes(s, "timeout -s KILL 1", SLEEP);
        composes(s, "timeout --foreground 1", SLEEP);
    });
}

#[test]
fn nice_composes() {
    sandbox(|s| composes(s, "nice -n 7", "sh -c 'nice; cat'"));
}

#[test]
fn setsid_composes() {
    sandbox(|s| {
        // Without a controlling terminal, /dev/tty cannot be opened.
        composes(
            s,
            "setsid --wait",
            "sh -c 'cat; sh -c \": </dev/tty\" 2>/dev/null || echo none; exit 5'",
        );
    });
}

#[test]
fn nohup_composes() {
    sandbox(|s| {
        composes(
            s,
            "nohup",
            "sh -c 'cat; kill -HUP $$; echo alive; grep SigIgn /proc/self/status'",
        );
        // The signals come from outside.
        for chain in ["", "jc-unshare -u --", "jc-unshare -p --", "jc-unshare -p --init --"] {
            let line =
                format!("exec nohup {chain} sh -c 'echo ready; read -r x; exit 4' 2>/dev/null");
            let (reader, mut writer) = std::io::pipe().unwrap();
            let mut running = s.sh(&line).stdin(reader).spawn();
            running.wait_for("ready");
            running.signal(Signal::HUP);
            std::io::Write::write_all(&mut writer, b"x\n").unwrap();
            running.wait().code(4);
        }
    });
}

#[test]
fn taskset_composes() {
    sandbox(|s| composes(s, "taskset 1", "sh -c 'cat; grep Cpus_allowed: /proc/self/status'"));
}

#[test]
fn env_composes() {
    sandbox(|s| {
        // Variables that a shell adds by itself are left out.
        let path = std::env::var("PATH").unwrap();
        let bin = jc_tests::bin_dir();
        composes(s, &format!("env -i A=b PATH={}:{path}", bin.display()), "env");
        composes(
            s,
            "env --chdir=/ --ignore-signal=CHLD,USR1",
            "sh -c 'pwd; grep SigIgn /proc/self/status'",
        );
    });
}

#[test]
fn prlimit_composes() {
    sandbox(|s| {
        composes(
            s,
            "prlimit --nofile=77:99 --core=0 --cpu=50",
            "sh -c 'cat; ulimit -Sn; ulimit -Hn; ulimit -t'",
        )
    });
}

#[test]
fn choom_composes() {
    sandbox(|s| composes(s, "choom -n 321 --", "sh -c 'cat; cat /proc/self/oom_score_adj'"));
}

#[test]
fn strace_composes() {
    sandbox(|s| {
        require(s, "strace", "strace");
        composes(
            s,
            "strace -f -o /dev/null",
            "sh -c 'cat; true; sh -c \"exit 3\"; echo $?; exit 4'",
        );
        // strace sees the program through the link, with every thread and child.
        let line = "strace -f -e trace=execve -o log jc-unshare -p --init -- sh -c 'true; /bin/true; exit 6'";
        s.sh(line).run().code(6).stderr("");
        s.sh("grep -c 'execve(\"/bin/true\"' log").run().stdout("1\n");
        let line = "exec strace -f -o log jc-unshare -p -- sh -c 'echo ready; exec sleep 1000'";
        let mut running = s.sh(line).spawn();
        running.wait_for("ready");
        s.sh("kill -TERM $(pidof jc-unshare)").run().code(0);
        running.wait().code(143);
    });
}
