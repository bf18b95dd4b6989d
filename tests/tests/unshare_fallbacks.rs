//! jc-unshare on kernels without newer system calls, or behind filters of containers.

#![cfg(target_os = "linux")]

use jc_tests::seccomp::without;
use jc_tests::{Cmd, Sandbox, sandbox};
use nix::libc::{self, ENOSYS, EPERM, c_long};
use rustix::process::Signal;

const TOOL: &str = "jc-unshare";

/// Checks the usual tasks of a waiting link.
fn behaves(s: &Sandbox, lacking: &[c_long]) {
    // Only the link and its programs lack the calls, since the test itself uses them.
    let start = |command: Cmd| without(lacking, ENOSYS, || command.spawn());
    for options in [&["-p"][..], &["-pui", "--init"], &["--all", "-r"], &["-pT", "--boottime", "1"]]
    {
        let payload = ["--", "sh", "-c", "read -r x; echo $x $$; exit 42"];
        let ran = start(s.jc(TOOL).args(options).args(payload).input("in\n")).wait().code(42);
        let pid = if options.contains(&"--init") { 2 } else { 1 };
        ran.stdout(&format!("in {pid}\n")).stderr("");

        let payload = ["--", "sh", "-c", "trap 'exit 7' TERM; sleep 1000 & echo ready; wait"];
        let mut running = start(s.jc(TOOL).args(options).args(payload));
        running.wait_for("ready");
        running.signal(Signal::TERM);
        running.wait().code(7);

        let payload = ["--", "sh", "-c", "echo ready; exec sleep 1000"];
        let mut running = start(s.jc(TOOL).args(options).args(payload));
        running.wait_for("ready");
        s.cmd("kill").args(["-s", "34", &running.pid().to_string()]).run().code(0);
        running.wait().code(128 + 34);

        let payload = ["--", "sh", "-c", "setsid sleep 1000 & echo ready; sleep 1000"];
        let mut running = start(s.jc(TOOL).args(options).args(payload));
        running.wait_for("ready");
        running.signal(Signal::KILL);
        running.wait().killed_by(Signal::KILL);
        s.wait_for_no_process();
    }
    let mapped =
        ["-pU", "--map-users", "0:5:9", "--map-groups", "0:5:9", "cat", "/proc/self/uid_map"];
    start(s.jc(TOOL).args(mapped)).wait().code(0).stdout("         0          5          9\n");
    let script = "exec jc-unshare --join $$ -p -- sh -c 'echo $$'";
    start(s.sh(script)).wait().code(0).stdout("1\n");
}

const NEWER: [c_long; 4] =
    [libc::SYS_clone3, libc::SYS_pidfd_open, libc::SYS_pidfd_send_signal, libc::SYS_close_range];

#[test]
fn chains_wait_and_forward_without_clone3() {
    sandbox(|s| behaves(s, &NEWER[..1]));
}

#[test]
fn chains_wait_and_forward_without_pidfd_open() {
    sandbox(|s| behaves(s, &NEWER[1..2]));
}

#[test]
fn chains_wait_and_forward_without_pidfd_send_signal() {
    sandbox(|s| behaves(s, &NEWER[2..3]));
}

#[test]
fn chains_wait_and_forward_without_close_range() {
    sandbox(|s| behaves(s, &NEWER[3..]));
}

#[test]
fn chains_wait_and_forward_without_any_newer_call() {
    sandbox(|s| behaves(s, &NEWER));
}

/// A link must not keep a descriptor open that its payload has closed, also without close_range(2).
#[test]
fn a_waiting_link_keeps_no_descriptor_open() {
    sandbox(|s| {
        for lacking in [&[][..], &NEWER[3..]] {
            for options in ["-u", "-p", "-p --init"] {
                // The reader sees the end while the program runs.
                let script = format!(
                    "mkfifo go; {{ jc-unshare {options} -- sh -c 'exec >&- 2>&- 5>&-; read -r x <go' 5>&1 2>&1 &
                     }} | {{ cat; echo the end; }}; echo >go; wait; rm go"
                );
                let ran = without(lacking, ENOSYS, || s.sh(&script).run());
                ran.code(0).stdout("the end\n");
                // The writer sees that the reader has gone.
                let script = format!(
                    "mkfifo go; (trap '' PIPE; while echo x; do :; done 2>/dev/null; echo >go) |
                     jc-unshare {options} -- sh -c 'exec <&-; read -r x <go'; rm go"
                );
                without(lacking, ENOSYS, || s.sh(&script).run()).code(0).stdout("");
            }
        }
    });
}

/// A filter denies the call, and no capability is missing.
#[test]
fn a_filter_is_named() {
    sandbox(|s| {
        for option in ["-U", "-u"] {
            let command = s.jc(TOOL).args([option, "true"]);
            let ran = without(&[libc::SYS_unshare], EPERM, || command.run()).code(125).stdout("");
            assert!(ran.err().contains("hint: a seccomp filter is active"), "{ran}");
            ran.fails_as(TOOL, "unshare: Operation not permitted");
        }
    });
}
