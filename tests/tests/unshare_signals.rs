//! Every signal ends a program behind jc-unshare with the same code as without, whoever sends it.

#![cfg(target_os = "linux")]

use std::os::unix::process::ExitStatusExt;

use jc_tests::{Sandbox, require, sandbox};
use rustix::process::Signal;

/// Signals that end a program, and two that are ignored. The C library uses 32 and 33 itself.
const SIGNALS: &str = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 24 25 26 27 28 29 30 31 34 50 64";

const CHAINS: [&str; 4] =
    ["jc-unshare -u --", "jc-unshare -p --", "jc-unshare -p --init --", "jc-unshare --all -r --"];

/// The codes, as bash shows them, of a program that sends itself each signal.
fn codes(s: &Sandbox, chain: &str) -> String {
    let script = format!(
        "ulimit -c 0; for n in {SIGNALS}; do {chain} sh -c \"kill -$n \\$\\$; exit 99\"; echo $n $?; done"
    );
    s.cmd("bash").args(["-c", &script]).run().code(0).out()
}

#[test]
fn signals_of_a_program_to_itself_end_a_chain_as_they_end_the_program() {
    sandbox(|s| {
        require(s, "bwrap", "bubblewrap");
        let plain = codes(s, "");
        assert!(plain.contains("\n15 143\n16 144\n17 99\n"), "{plain}");
        for chain in ["jc-unshare -u --", "jc-unshare -p --init --"] {
            assert_eq!(codes(s, chain), plain, "{chain}");
        }
        assert_eq!(codes(s, "bwrap --bind / / --dev-bind /dev /dev --unshare-pid --"), plain);
        // The kernel drops signals that a PID 1 sends itself (pid_namespaces(7)).
        let bare = codes(s, "unshare -pf --");
        assert_ne!(bare, plain);
        assert_eq!(codes(s, "jc-unshare -p --"), bare);
    });
}

/// The codes of a program after each signal to the first process of the chain, followed by SIGTERM for ignored
/// signals.
fn codes_from_outside(s: &Sandbox, chain: &str) -> String {
    let mut codes = String::new();
    for signal in SIGNALS.split(' ') {
        let line = format!("exec {chain} sh -c 'echo ready; exec sleep 1000'");
        let mut running = s.sh(&line).spawn();
        running.wait_for("ready");
        let pid = running.pid().to_string();
        s.cmd("kill").args(["-s", signal, &pid]).run().code(0);
        if matches!(signal, "17" | "28") {
            s.cmd("kill").args(["-s", "15", &pid]).run().code(0);
        }
        let status = running.wait().status();
        let code = status.code().or_else(|| Some(128 + status.signal()?)).unwrap();
        codes += &format!("{signal} {code}\n");
        s.wait_for_no_process();
    }
    codes
}

#[test]
fn signals_from_outside_end_a_chain_as_they_end_the_program() {
    sandbox(|s| {
        let plain = codes_from_outside(s, "");
        assert!(plain.contains("\n15 143\n16 144\n17 143\n"), "{plain}");
        for chain in CHAINS {
            assert_eq!(codes_from_outside(s, chain), plain, "{chain}");
        }
    });
}

/// A program that stops its group, like an editor, gets that signal once, and later another stop from outside.
#[test]
fn a_stop_of_the_group_is_one_stop() {
    sandbox(|s| {
        let script = "trap 'echo stop' TSTP; trap 'echo on' CONT; kill -TSTP 0
            for n in 1 2 3 4 5 6 7 8 9; do sleep 0.02; done
            echo ready; while :; do sleep 0.01; done";
        for chain in ["", CHAINS[0], CHAINS[2]] {
            let mut running = s.sh(&format!("exec {chain} sh -c \"$0\"")).arg(script).spawn();
            running.wait_for("ready");
            running.signal(Signal::CONT);
            running.wait_for("on");
            running.signal(Signal::TSTP);
            running.wait_for("on\nstop");
            running.signal(Signal::TERM);
            running.wait().stdout("stop\nready\non\nstop\n");
        }
    });
}

/// Orphans of any group or session that end by any signal. An init leaves no zombie of them.
#[test]
fn orphans_are_reaped() {
    sandbox(|s| {
        let script = "for n in 0 9 15 34 64; do
                (sh -c \"kill -$n \\$\\$\" &); (setsid sh -c \"kill -$n \\$\\$; exit 3\" &)
            done
            while ps -o stat=,args= -A | grep -v -e grep -e 'ps -o' | grep -q -e '^Z' -e 'sh -c kill'; do
                sleep 0.01
            done; exit 8";
        let link = ["-pm", "--mount-proc", "--init", "--", "bash", "-c", script];
        s.jc("jc-unshare").args(link).run().code(8);
    });
}
