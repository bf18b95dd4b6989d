//! jc-trace: the processes of a recording, many at once, and the ends of program and recorder.

#![cfg(target_os = "linux")]

mod trace_support;

use std::fs;

use jc_tests::internet::{CALLERS, PYTHON, lines};
use jc_tests::roots::busybox_root;
use jc_tests::{require, sandbox, workspace_dir};
use rustix::process::Signal;
use serde_json::json;
use trace_support::{events, file, gaps, traced};

const TOOL: &str = "jc-trace";

/// A process whose parent has ended stays a descendant of the recorder, whose memory Yama's ptrace_scope 1 lets the
/// recorder read.
#[test]
fn processes_of_a_subreaper_are_recorded() {
    sandbox(|s| {
        let program = "import ctypes, os, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
read, write = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        os.close(read)
        while os.getppid() != int(os.environ['REAPER']): time.sleep(0.001)
        open('/etc/hostname').close()
        os.write(write, b'x')
    os._exit(0)
os.close(write)
os.read(read, 1)
while True:
    try: os.wait()
    except ChildProcessError: break";
        fs::write("/srv/p.py", program).unwrap();
        fs::write("/srv/reaper", format!("REAPER=$$ exec {PYTHON} p.py\n")).unwrap();
        for caller in CALLERS {
            s.sh("chmod 777 .").run().code(0);
            let (ran, report) = traced(s, &format!("{caller} {TOOL} --report /srv/t -- sh reaper"));
            ran.code(0).stderr("");
            assert_eq!(file(&report, "/etc/hostname")["exists"], true);
            assert_eq!(gaps(&report), [""; 0]);
        }
    });
}

#[test]
fn a_terminal_stays_a_terminal() {
    sandbox(|s| {
        busybox_root(s, "root");
        for line in [
            format!("{TOOL} --report t -- sh -c 'test -t 0 && echo tty'"),
            "jc-run --trace t -t --network none --rootfs root -- sh -c 'test -t 0 && echo tty'"
                .to_owned(),
        ] {
            let mut terminal = jc_tests::pty::Terminal::start(s.sh(&format!("exec {line}")));
            terminal.wait_for("tty");
            assert_eq!(terminal.wait().0.code(), Some(0));
            assert_eq!(lines("/srv/t").last().unwrap()["code"], 0);
        }
    });
}

#[test]
fn processes_that_are_left_run_on_and_those_of_a_killed_recorder_end() {
    sandbox(|s| {
        s.sh("mkfifo gate").run().code(0);
        // The program ends first.
        let script = "(read -r x <gate; cat /etc/hostname >late) & exit 0";
        s.sh(&format!("{TOOL} --report t -- sh -c '{script}' >/dev/null 2>&1")).run().code(0);
        s.sh("echo >gate; until test -s late; do sleep 0.01; done").run().code(0);
        s.wait_for_no_process();
        for (fate, lives) in [("end", false), ("continue", true)] {
            let script = "trap : TERM; echo ready; read -r x <gate; cat /etc/hostname >after; echo over >>after";
            let line = format!("exec {TOOL} --report t --on-death {fate} -- sh -c '{script}'");
            let mut running = s.sh(&format!("rm -f after; {line} 2>/dev/null")).spawn();
            running.wait_for("ready");
            running.signal(Signal::KILL);
            if lives {
                s.sh("echo >gate; until grep -q over after; do sleep 0.01; done").run().code(0);
            }
            running.wait().killed_by(Signal::KILL);
            s.wait_for_no_process();
            assert_eq!(s.sh("test -s after").run().status().success(), lives, "{fate}");
        }
        // A child of the program ends at its next call.
        let script = "(trap : HUP; echo ready; read -r x <gate; cat /etc/hostname >after) & wait";
        let mut running =
            s.sh(&format!("rm -f after; exec {TOOL} --report t -- sh -c '{script}'")).spawn();
        running.wait_for("ready");
        running.signal(Signal::KILL);
        s.sh("echo >gate").run().code(0);
        s.wait_for_no_process();
        running.wait().killed_by(Signal::KILL);
        s.sh("test ! -s after").run().code(0);
    });
}

/// The recorder may end with a call that it has received and not answered.
#[test]
fn a_process_that_makes_calls_at_the_end_of_its_recorder_runs_on() {
    sandbox(|s| {
        let calls = "i=0; while [ $i -lt 1500 ]; do : </etc/hostname; i=$((i+1)); done";
        for round in 0..10 {
            let script = format!("(exec >/dev/null 2>&1; {calls}; echo {round} >>over) & exit 0");
            s.sh(&format!("exec {TOOL} --report t -- sh -c '{script}'")).run().code(0);
            s.sh(&format!("until grep -qsx {round} over; do sleep 0.01; done")).run().code(0);
        }
        s.wait_for_no_process();
    });
}

/// The end of the program is pending in the recorder when the recorder starts its second child.
#[test]
fn a_program_that_is_killed_before_the_recorder_runs_ends_the_recorder() {
    sandbox(|s| {
        require(s, "strace", "strace");
        let script = format!(
            "strace -o log -e inject=recvmsg:delay_exit=500000 {TOOL} --report t -- true &
            until recorder=$(pgrep -P $!) && program=$(pgrep -P $recorder) &&
                grep -q '^Seccomp:.2' /proc/$program/status &&
                grep -q '^State:.S' /proc/$program/status; do sleep 0.01; done
            kill -9 $program
            wait $!"
        );
        s.sh(&script).run().code(137);
    });
}

#[test]
fn storms_of_programs_and_threads_are_recorded() {
    sandbox(|s| {
        let script = "for i in $(seq 100); do /bin/true $i & done; wait; for i in $(seq 50); do (exit 3); done; true";
        let (ran, report) = traced(s, &format!("{TOOL} --report t -- sh -c '{script}'"));
        ran.code(0);
        let programs = events(&report, "program");
        let ran = programs.iter().filter(|program| program["path"] == "/bin/true");
        assert_eq!(ran.filter(|program| program["exit"] == json!([0])).count(), 100);
        let program = "import threading, os
def look(number):
    for i in range(200): os.access(f'/none/{number}/{i}', os.R_OK)
threads = [threading.Thread(target=look, args=(n,)) for n in range(20)]
[t.start() for t in threads]; [t.join() for t in threads]";
        fs::write("/srv/p.py", program).unwrap();
        let (ran, report) = traced(s, &format!("{TOOL} --report t -- {PYTHON} p.py"));
        ran.code(0);
        let paths = events(&report, "file");
        let found =
            paths.iter().filter(|file| file["path"].as_str().unwrap().starts_with("/none/"));
        assert_eq!(found.filter(|file| file["exists"] == false).count(), 4000);
        assert_eq!(gaps(&report), [""; 0]);
    });
}

#[test]
fn a_signal_storm_delays_no_call() {
    sandbox(|s| {
        let program = "import signal, os
signal.signal(signal.SIGALRM, lambda *_: None)
signal.siginterrupt(signal.SIGALRM, False)
signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
for i in range(2000): os.access(f'/none/{i}', os.R_OK)
signal.setitimer(signal.ITIMER_REAL, 0)";
        fs::write("/srv/p.py", program).unwrap();
        let (ran, report) = traced(s, &format!("{TOOL} --report t -- {PYTHON} p.py"));
        ran.code(0);
        assert!(events(&report, "file").len() >= 2000);
    });
}

/// The program serves the memory of a path itself, by calls that wait for the recorder too.
#[test]
fn a_program_that_stalls_the_recorder_ends_and_the_report_has_that() {
    sandbox(|s| {
        let source = workspace_dir().join("tests/tests/trace_support/stall.c");
        s.cmd("cc").args(["-static", "-o", "stall"]).arg(source).run().code(0);
        let (ran, report) = traced(s, &format!("{TOOL} --report t -- ./stall"));
        ran.code(125).stdout("waits\n").fails_as(TOOL, "the program keeps the recorder waiting");
        assert_eq!(gaps(&report), ["stalled", "recorder-failed"]);
        s.wait_for_no_process();
        // Signals are forwarded meanwhile.
        let mut running = s.sh(&format!("exec {TOOL} --report t -- ./stall")).spawn();
        running.wait_for("waits");
        running.signal(Signal::TERM);
        running.wait().shell_code(143);
        s.wait_for_no_process();
    });
}
