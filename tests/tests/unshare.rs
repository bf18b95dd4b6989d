//! `jc-unshare`, alone.

#![cfg(target_os = "linux")]

use std::fs;
use std::thread;
use std::time::Duration;

use jc_tests::contract::Chain;
use jc_tests::pty::Terminal;
use jc_tests::volume::volume;
use jc_tests::{Sandbox, keeps_the_contract, sandbox};
use rustix::process::Signal;

const TOOL: &str = "jc-unshare";

keeps_the_contract!(without_a_fork, ["jc-unshare", "-u"], "jc-unshare");
keeps_the_contract!(as_a_waiting_link, ["jc-unshare", "-p"], "jc-unshare");
keeps_the_contract!(with_an_init, ["jc-unshare", "-p", "--init"], "jc-unshare");
keeps_the_contract!(
    with_all_namespaces,
    ["jc-unshare", "-puinCT", "--hostname", "x"],
    "jc-unshare"
);

#[test]
fn a_signal_cannot_come_too_early() {
    sandbox(|s| Chain::new(s, &[TOOL, "-p"], TOOL).hears_early_signals());
}

#[test]
fn a_program_is_needed() {
    sandbox(|s| {
        s.jc(TOOL).run().code(125).stdout("").fails_as(TOOL, "program");
        s.jc(TOOL).args(["-p", "--"]).run().code(125).stdout("").fails_as(TOOL, "program");
    });
}

#[test]
fn each_letter_makes_its_namespace_and_no_other() {
    sandbox(|s| {
        let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
        let script = "cd /proc/self/ns; for k in cgroup ipc mnt net pid time user uts; do
            echo $(readlink $k); done";
        let here = s.sh(script).run().code(0).out();
        for (options, new) in [
            (&["-p"][..], &["pid"][..]),
            (&["--pid"], &["pid"]),
            (&["-u"], &["uts"]),
            (&["--uts"], &["uts"]),
            (&["-i"], &["ipc"]),
            (&["--ipc"], &["ipc"]),
            (&["-n"], &["net"]),
            (&["--net"], &["net"]),
            (&["-C"], &["cgroup"]),
            (&["--cgroup"], &["cgroup"]),
            (&["-T"], &["time"]),
            (&["--time"], &["time"]),
            (&["-puinCT"], &["cgroup", "ipc", "net", "pid", "time", "uts"]),
            (&["-pT"], &["pid", "time"]),
            (&[], &[]),
        ] {
            let ran = s.jc(TOOL).args(options).args(["--", "sh", "-c", script]).run().code(0);
            let there = ran.out();
            let pairs = kinds.iter().zip(here.lines().zip(there.lines()));
            let changed: Vec<&str> =
                pairs.filter(|(_, (a, b))| a != b).map(|(kind, _)| *kind).collect();
            assert_eq!(changed, new, "{options:?}");
        }
    });
}

#[test]
fn the_payload_is_pid_1() {
    sandbox(|s| {
        s.jc(TOOL).args(["-p", "--", "sh", "-c", "echo $$ $PPID"]).run().code(0).stdout("1 0\n");
    });
}

#[test]
fn the_hostname_is_set_inside_only() {
    sandbox(|s| {
        s.jc(TOOL).args(["-u", "--hostname", "inner", "hostname"]).run().code(0).stdout("inner\n");
        let outer = format!("{}\n", s.hostname());
        s.jc(TOOL).args(["-u", "--", "hostname"]).run().code(0).stdout(&outer);
        s.sh("hostname").run().stdout(&outer);
        // Without -u the option would rename the host.
        s.jc(TOOL).args(["--hostname", "inner", "true"]).run().code(125).fails_as(TOOL, "-u");
        let long = "x".repeat(65);
        let ran = s.jc(TOOL).args(["-u", "--hostname", &long, "true"]).run();
        ran.code(125).stdout("").fails_as(TOOL, "sethostname");
        let fits = "x".repeat(64);
        let ran = s.jc(TOOL).args(["-u", "--hostname", &fits, "hostname"]).run();
        ran.code(0).stdout(&format!("{fits}\n"));
    });
}

#[test]
fn loopback_is_up_where_it_is_wanted() {
    sandbox(|s| {
        let addresses = |options: &[&str]| {
            let flags = "cat /sys/class/net/*/flags; ip -o addr | awk '{ print $2, $4 }'";
            let script = format!("mount -t sysfs none /sys && {flags}");
            s.jc(TOOL).args(options).args(["-m", "--", "sh", "-c", &script]).run().code(0).out()
        };
        let up = "0x9\nlo 127.0.0.1/8\nlo ::1/128\n";
        for options in [&["-n", "--loopback"][..], &["-np", "--loopback"], &["-npU", "--loopback"]]
        {
            let options = if options[0].contains('U') {
                &[options, &["--map-root"]].concat()
            } else {
                options
            };
            assert_eq!(addresses(options), up, "{options:?}");
        }
        assert_eq!(addresses(&["-n"]), "0x8\n");
        // Without -n the option would change the network of the host.
        s.jc(TOOL).args(["--loopback", "true"]).run().code(125).fails_as(TOOL, "-n");
        let refused = s
            .cmd("strace")
            .args(["-f", "--output=/dev/null", "--quiet=all", "--inject=ioctl:error=ENODEV", "--"])
            .arg(s.bin(TOOL))
            .args(["-n", "--loopback", "--", "echo", "ran"])
            .run();
        refused.code(125).stdout("").fails_as(TOOL, "set lo up: No such device");
    });
}

/// Without that, the next opened file would be one of the standard descriptors, and receive their output.
#[test]
fn closed_standard_descriptors_are_opened() {
    sandbox(|s| {
        let links = "/proc/$$/fd/0 /proc/$$/fd/1 /proc/$$/fd/2";
        for (closed, which) in [
            ("<&-", "/dev/null\nx\nx\n"),
            (">&-", "x\n/dev/null\nx\n"),
            ("2>&-", "x\nx\n/dev/null\n"),
            ("<&- >&- 2>&-", "/dev/null\n/dev/null\n/dev/null\n"),
        ] {
            let script = format!("which=$(readlink {links}); echo \"$which\" >which");
            let line = format!("exec <x >x 2>x; exec jc-unshare -- sh -c '{script}' {closed}");
            s.sh(&format!("touch x; {line}")).run().code(0);
            let found = s.sh("sed 's,.*/srv/,,' which").run().out();
            assert_eq!(found, which, "{closed}");
        }
    });
}

/// PID 1 cannot kill itself by a signal (pid_namespaces(7)).
#[test]
fn the_code_of_a_payload_that_kills_itself_is_that_of_the_signal() {
    sandbox(|s| {
        let run = |options: &[&str]| {
            s.jc(TOOL).args(options).args(["--", "sh", "-c", "kill -9 $$; exit 5"]).run()
        };
        run(&["-p", "--init"]).code(137);
        run(&["-p"]).code(5);
        run(&["-u"]).killed_by(Signal::KILL);
    });
}

#[test]
fn the_code_of_a_payload_that_is_killed_from_outside_is_that_of_the_signal() {
    sandbox(|s| {
        for options in [&["-p"][..], &["-p", "--init"]] {
            let payload = ["--", "sh", "-c", "echo ready; exec sleep 1000"];
            let mut running = s.jc(TOOL).args(options).args(payload).spawn();
            running.wait_for("ready");
            let pids = s.sh("pidof sleep").run().code(0).out();
            s.cmd("kill").args(["-9", pids.trim()]).run().code(0);
            running.wait().code(137);
        }
    });
}

#[test]
fn all_ends_with_the_payload() {
    sandbox(|s| {
        for options in [&["-p"][..], &["-p", "--init"]] {
            let script = "setsid sleep 1000 >/dev/null 2>&1 & sleep 1000 >/dev/null 2>&1 & exit 4";
            s.jc(TOOL).args(options).args(["--", "sh", "-c", script]).run().code(4);
            assert_eq!(s.processes(), Vec::<String>::new(), "{options:?}");
        }
    });
}

#[test]
fn an_init_reaps_orphans() {
    sandbox(|s| {
        // Orphans end at different times, and a zombie among them would let the script run into its time limit.
        let script = "for i in 1 2 3 4 5; do (sleep 0.0$i & exit) ; done
            while cat /proc/[0-9]*/stat 2>/dev/null | grep -q '(sleep)'; do :; done; echo reaped";
        s.jc(TOOL).args(["-p", "--init", "--", "sh", "-c", script]).run().stdout("reaped\n");
        s.jc(TOOL).args(["--init", "true"]).run().code(125).fails_as(TOOL, "-p");
    });
}

/// Checks that a key stops a job, and that the shell sees the stop. `when_ready` is called when the job runs.
fn stops(s: &Sandbox, options: &str, when_ready: impl FnOnce()) {
    // The script has builtins only, since a shell that is stopped during a vfork(2) would hang.
    let payload = "echo ready; read -r x; echo \"<$x>\"; exit 3";
    let link = format!("{TOOL} {options} -- sh -c '{payload}'");
    let script = format!("set -m; {link}; fg >/dev/null; echo ended $?");
    let mut terminal = Terminal::start(s.cmd("bash").args(["-c", &script]));
    terminal.wait_for("ready");
    when_ready();
    terminal.type_in("\x1a");
    terminal.wait_for("Stopped");
    terminal.type_in("typed\n");
    terminal.wait_for("<typed>");
    terminal.wait_for("ended 3");
    assert_eq!(terminal.wait().0.code(), Some(0));
}

#[test]
fn a_stop_without_a_fork_stops_the_program() {
    sandbox(|s| stops(s, "-u", || {}));
}

#[test]
fn a_stop_of_a_waiting_link_stops_its_payload() {
    sandbox(|s| stops(s, "-p", || {}));
}

/// strace delays the link after its continuation, and the program ends meanwhile.
#[test]
fn a_program_can_end_right_after_a_stop() {
    sandbox(|s| {
        let mut strace = None;
        stops(s, "-p", || {
            let pid = s.cmd("pidof").arg("-s").arg(TOOL).run().code(0).out();
            let slow = ["--trace=waitid", "--inject=waitid:delay_enter=300000", "--attach"];
            let traced = s.cmd("strace").args(["--quiet=all", "--output=trace"]).args(slow);
            strace = Some(traced.arg(pid.trim()).spawn());
            let status = format!("/proc/{}/status", pid.trim());
            while fs::read_to_string(&status).unwrap().contains("TracerPid:\t0\n") {
                thread::sleep(Duration::from_millis(2));
            }
        });
        strace.unwrap().wait();
        let trace = fs::read_to_string(s.path("trace")).unwrap();
        assert!(trace.contains("ECHILD") && trace.contains("DELAYED"), "{trace}");
    });
}

#[test]
fn a_stop_of_a_link_with_an_init_stops_the_payload() {
    sandbox(|s| stops(s, "-p --init", || {}));
}

/// With a PID namespace, all processes of the payload end with it.
#[test]
fn nothing_outlives_a_killed_link() {
    sandbox(|s| {
        for options in [&["-p"][..], &["-p", "--init"]] {
            let script = "setsid sleep 1000 >/dev/null 2>&1 & echo ready; sleep 1000; :";
            let mut running = s.jc(TOOL).args(options).args(["--", "sh", "-c", script]).spawn();
            running.wait_for("ready");
            running.signal(Signal::KILL);
            running.wait().killed_by(Signal::KILL);
            s.wait_for_no_process();
        }
    });
}

/// The payload does not outlive its waiting link, however early the link dies.
#[test]
fn no_payload_outlives_a_killed_link() {
    sandbox(|s| {
        for delay in 0..150 * u64::from(volume()) {
            let running = s.jc(TOOL).args(["-p", "--", "sleep", "1000"]).spawn();
            std::thread::sleep(Duration::from_micros(delay % 150 * 20));
            running.signal(Signal::KILL);
            running.wait().killed_by(Signal::KILL);
        }
        s.wait_for_no_process();
    });
}

#[test]
fn a_forbidden_namespace_is_an_error_with_a_hint() {
    sandbox(|s| {
        for option in ["-p", "-u", "-i", "-n", "-C", "-T"] {
            let before = ["--bounding-set=-sys_admin", TOOL, option, "--", "true"];
            let ran = s.cmd("setpriv").args(before).run();
            let err = ran.err();
            assert!(err.contains("Operation not permitted\n"), "{ran}");
            assert!(err.contains("hint: ") && err.contains("CAP_SYS_ADMIN"), "{ran}");
            ran.code(125).stdout("").fails_as(TOOL, "Operation not permitted");
        }
    });
}
