//! jc-trace: the recorder as a link, and what its reports have.

#![cfg(target_os = "linux")]

use std::fs;

use jc_tests::internet::{CALLERS, PYTHON, lines};
use jc_tests::roots::busybox_root;
use jc_tests::{Ran, Sandbox, keeps_the_contract, require, sandbox, workspace_dir};
use rustix::process::Signal;
use serde_json::{Value, json};

const TOOL: &str = "jc-trace";

keeps_the_contract!(bare, ["jc-trace", "--report", "/srv/t"], "jc-trace");
keeps_the_contract!(
    in_front_of_a_chain,
    [
        "jc-trace",
        "--report",
        "/srv/t",
        "--trace-fd",
        "9",
        "--",
        "jc-rootfs",
        "--trace-fd",
        "9",
        "ROOT"
    ],
    "jc-rootfs"
);

fn events(report: &[Value], kind: &str) -> Vec<Value> {
    report.iter().filter(|event| event["event"] == kind).cloned().collect()
}

/// The event of a path.
#[track_caller]
fn file<'a>(report: &'a [Value], path: &str) -> &'a Value {
    let found = report.iter().find(|event| event["event"] == "file" && event["path"] == path);
    found.unwrap_or_else(|| panic!("{path} is not in {report:#?}"))
}

fn has_call(report: &[Value], name: &str, value: Option<u64>) -> bool {
    report.iter().any(|event| {
        event["event"] == "call"
            && event["name"] == name
            && (value.is_none() || event["value"].as_u64() == value)
    })
}

fn gaps(report: &[Value]) -> Vec<String> {
    events(report, "gap").iter().map(|gap| gap["reason"].as_str().unwrap().to_owned()).collect()
}

/// Runs a recorder with a program, and returns the report.
#[track_caller]
fn traced(s: &Sandbox, line: &str) -> (Ran, Vec<Value>) {
    let ran = s.sh(&format!("rm -f t; exec {line}")).run();
    assert!(fs::exists("/srv/t").unwrap(), "{ran}");
    let report = lines("/srv/t");
    assert_eq!(report.first().map(|first| &first["event"]), Some(&json!("trace")), "{ran}");
    assert_eq!(report.last().map(|last| &last["event"]), Some(&json!("end")), "{ran}");
    (ran, report)
}

#[test]
fn a_report_has_each_different_event_once_and_in_order() {
    sandbox(|s| {
        s.sh("mkdir d && echo text >d/f && ln -s d/f link && chmod 777 . && ip link set lo up")
            .run()
            .code(0);
        let script = "cat link link >out; cd d; cat f ./f; ls . >/dev/null; cat /none 2>/dev/null; \
            mv ../out ../moved; rm ../moved; exit 3";
        for caller in CALLERS {
            let line = format!("{caller} {TOOL} --report /srv/t -- sh -c '{script}'");
            let (ran, report) = traced(s, &line);
            ran.code(3).stdout("text\ntext\n");
            assert_eq!((&report[0]["argv"][0], &report[0]["cwd"]), (&json!("sh"), &json!("/srv")));
            let programs = events(&report, "program");
            let cat =
                programs.iter().find(|program| program["argv"] == json!(["cat", "link", "link"]));
            let cat = cat.unwrap_or_else(|| panic!("{programs:?}"));
            assert_eq!((&cat["count"], &cat["exit"]), (&json!(1), &json!([0])));
            let link = file(&report, "/srv/link");
            assert_eq!((&link["real"], &link["exists"]), (&json!("/srv/d/f"), &json!(true)));
            assert_eq!((&link["uses"], &link["flags"]), (&json!(["open"]), &json!(["read"])));
            assert_eq!(file(&report, "/srv/d")["uses"], json!(["enter", "list", "open", "stat"]));
            assert_eq!(file(&report, "/none")["exists"], false);
            let moved = file(&report, "/srv/d/../moved");
            assert_eq!(moved["uses"], json!(["remove", "rename", "stat"]));
            assert_eq!(file(&report, "/srv/out")["flags"], json!(["create", "truncate", "write"]));
            let loader = report.iter().any(|event| {
                event["uses"] == json!(["execute"])
                    && event["path"].as_str().unwrap().contains("/ld-")
            });
            assert!(loader, "{report:#?}");
            assert!(has_call(&report, "execve", None) && !has_call(&report, "read", None));
            assert_eq!(report.last().unwrap(), &json!({"event":"end","code":3,"signal":null}));
            assert_eq!(gaps(&report), [""; 0]);
            let keys: Vec<&str> =
                report.iter().map(|event| event["event"].as_str().unwrap()).collect();
            let mut kinds = keys.clone();
            kinds.dedup();
            assert_eq!(kinds, ["trace", "program", "call", "file", "end"]);
        }
    });
}

#[test]
fn the_second_report_of_the_same_run_is_the_same() {
    sandbox(|s| {
        s.sh("mkdir d && for i in $(seq 20); do echo $i >d/$i; done").run().code(0);
        let line = format!("{TOOL} --report t -- sh -c 'for i in d/*; do cat $i & done; wait'");
        s.sh(&format!("{line} && mv t one && {line} && cmp one t")).run().code(0);
    });
}

#[test]
fn values_addresses_and_ends_by_signals_are_recorded() {
    sandbox(|s| {
        let program = "import socket, ctypes, fcntl, os
libc = ctypes.CDLL(None)
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
    s = socket.socket(family)
    try: s.connect({socket.AF_INET: ('127.0.0.9', 99), socket.AF_INET6: ('::9', 98), socket.AF_UNIX: '/srv/none'}[family])
    except OSError: pass
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
try: u.sendto(b'x', ('127.0.0.8', 97))
except OSError: pass
b = socket.socket(); b.bind(('127.0.0.1', 4321))
libc.prctl(40, 0, 0, 0, 0)
libc.syscall(135, 0xffffffff)
os.kill(os.getpid(), 9)";
        fs::write("/srv/p.py", program).unwrap();
        s.sh("ip link set lo up").run().code(0);
        let (ran, report) = traced(s, &format!("{TOOL} --report t -- {PYTHON} p.py"));
        ran.shell_code(137);
        for value in [1, 2, 10] {
            assert!(has_call(&report, "socket", Some(value)), "{value}");
        }
        assert!(
            has_call(&report, "prctl", Some(40))
                && has_call(&report, "personality", Some(0xFFFF_FFFF))
        );
        let address = |event: &Value| {
            (
                event["address"].as_str().unwrap().to_owned(),
                event["port"].as_u64(),
                event["type"].clone(),
            )
        };
        let connects: Vec<_> = events(&report, "connect").iter().map(address).collect();
        for expected in [
            ("127.0.0.9".to_owned(), Some(99), json!("stream")),
            ("::9".to_owned(), Some(98), json!("stream")),
            ("/srv/none".to_owned(), None, json!("stream")),
            ("127.0.0.8".to_owned(), Some(97), json!("dgram")),
        ] {
            assert!(connects.contains(&expected), "{expected:?} {connects:?}");
        }
        let binds: Vec<_> = events(&report, "bind").iter().map(address).collect();
        assert_eq!(binds, [("127.0.0.1".to_owned(), Some(4321), json!("stream"))]);
        assert_eq!(file(&report, "/srv/none")["uses"], json!(["connect"]));
        assert_eq!(report.last().unwrap(), &json!({"event":"end","code":137,"signal":9}));
    });
}

#[test]
fn with_all_each_event_is_a_line_with_its_thread_and_time() {
    sandbox(|s| {
        let line = format!(
            "{TOOL} --report t --all -- sh -c 'cat /etc/hostname /etc/hostname >/dev/null'"
        );
        s.sh(&line).run().code(0);
        let report = lines("/srv/t");
        let opens = report.iter().filter(|event| event["path"] == "/etc/hostname");
        let opens: Vec<&Value> = opens.filter(|event| event["uses"] == json!(["open"])).collect();
        assert_eq!(opens.len(), 2, "{report:#?}");
        assert!(opens.iter().all(|open| open["thread"].is_u64() && open["time"].is_f64()));
        let last: Vec<&Value> = report.iter().rev().take(2).map(|event| &event["event"]).collect();
        assert_eq!(last, [&json!("end"), &json!("trace")]);
        assert_eq!(events(&report, "exit").len(), 2);
    });
}

#[test]
fn every_call_is_recorded_on_demand() {
    sandbox(|s| {
        let (ran, report) =
            traced(s, &format!("{TOOL} --report t --calls -- readlink /proc/self/exe"));
        ran.code(0);
        for name in ["read", "mmap", "close", "brk", "readlink", "exit_group"] {
            assert!(has_call(&report, name, None), "{name}");
        }
        assert_eq!(file(&report, "/proc/self/exe")["uses"], json!(["link"]));
        let (_, report) =
            traced(s, &format!("{TOOL} --report t --links -- readlink /proc/self/exe"));
        assert_eq!(file(&report, "/proc/self/exe")["uses"], json!(["link"]));
        assert_eq!((&report[0]["calls"], &report[0]["links"]), (&json!(false), &json!(true)));
    });
}

#[test]
fn a_container_is_recorded_from_its_program_on() {
    sandbox(|s| {
        busybox_root(s, "root");
        let run = "jc-run --trace t --rootfs root";
        for options in [
            "--network none",
            "--network none --init",
            "--network none -m 64M",
            "--network none -u 1 --cap-drop ALL",
            "--network none --security-opt no-new-privileges=false",
            "--network none --pid host",
            "--allow 192.0.2.1:80",
            "--privileged --network none",
            "--network none --read-only --tmpfs /x --trace-calls",
        ] {
            let (ran, report) =
                traced(s, &format!("{run} {options} -- sh -c 'cat /etc/hostname; exit 4'"));
            assert_eq!((ran.status().code(), ran.err().as_str()), (Some(4), ""), "{options} {ran}");
            let programs = events(&report, "program");
            let has = |name: &str| programs.iter().any(|program| program["argv"][0] == name);
            assert_eq!((programs.len(), has("sh"), has("cat")), (2, true, true), "{options}");
            assert_eq!(file(&report, "/etc/hostname")["exists"], true, "{options}");
            let outside = report.iter().any(|event| event.to_string().contains("/srv/root"));
            assert!(!outside, "{options} {report:#?}");
            assert_eq!(gaps(&report), [""; 0], "{options}");
            let usage = events(&report, "usage");
            let has_group = options.contains("-m") || options.contains("--pid");
            assert_eq!(usage.len(), usize::from(has_group), "{options}");
        }
        s.wait_for_no_process();
    });
}

#[test]
fn a_container_of_an_ordinary_user_is_recorded() {
    sandbox(|s| {
        busybox_root(s, "root");
        s.sh("chmod 1777 . && mkdir -m 700 state && chown -R 65534:65534 state root").run().code(0);
        let run = "env JC_STATE_DIR=/srv/state jc-run --trace t --network none --rootfs root -- cat /etc/hostname";
        let (ran, report) = traced(s, &format!("{} {run}", CALLERS[1]));
        ran.code(0).stderr("");
        assert_eq!(file(&report, "/etc/hostname")["exists"], true);
        assert_eq!(gaps(&report), [""; 0]);
    });
}

/// A container of podman with its default restrictions: no CAP_SYS_ADMIN, and a seccomp profile.
#[test]
fn inside_podman_a_program_is_recorded() {
    sandbox(|s| {
        require(s, "podman", "podman");
        require(s, "runc", "runc");
        busybox_root(s, "root");
        s.sh("mkdir root/programs && cp $(command -v jc-trace) root/programs/").run().code(0);
        let podman = "podman --root /srv/storage --runroot /run/storage --storage-driver vfs --cgroup-manager cgroupfs \
            --runtime runc run --rm --network none -e PATH=/programs:/bin -v /srv:/out --rootfs /srv/root";
        for user in ["", "-u 33"] {
            let podman = podman.replace(" --rm", &format!(" --rm {user}"));
            s.sh("chmod 777 .").run().code(0);
            let line =
                format!("{podman} {TOOL} --report /out/t -- sh -c 'cat /etc/hostname; exit 4'");
            let (ran, report) = traced(s, &line);
            assert_eq!((ran.status().code(), ran.err().as_str()), (Some(4), ""), "{user} {ran}");
            assert_eq!(file(&report, "/etc/hostname")["exists"], true);
            assert_eq!((events(&report, "program").len(), gaps(&report)), (2, vec![]));
        }
        s.sh("rm -rf /run/libpod /run/runc /run/storage /run/containers /run/crun").run().code(0);
        s.wait_for_no_process();
    });
}

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
fn what_a_report_lacks_is_in_the_report() {
    sandbox(|s| {
        let program = "import ctypes
libc = ctypes.CDLL(None, use_errno=True)
libc.open(ctypes.c_void_p(8), 0)
libc.open(b'x' * 5000, 0)
libc.syscall(425, 1, 0)
libc.syscall(5000)";
        fs::write("/srv/p.py", program).unwrap();
        let (ran, report) = traced(s, &format!("{TOOL} --report t -- {PYTHON} p.py"));
        ran.code(0);
        assert_eq!(gaps(&report), ["io_uring", "unreadable-memory"]);
        assert!(has_call(&report, "#5000", None));
        let inner = format!("{TOOL} --report inner -- true");
        let (ran, report) = traced(s, &format!("{TOOL} --report t -- {inner}"));
        ran.code(125).fails_as(TOOL, "busy");
        assert_eq!(gaps(&report), ["listener-refused"]);
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

#[test]
fn the_root_of_a_chroot_is_a_part_of_its_paths() {
    sandbox(|s| {
        busybox_root(s, "root");
        let (ran, report) = traced(s, &format!("{TOOL} --report t -- chroot root cat /etc/passwd"));
        ran.code(0);
        assert_eq!(file(&report, "/srv/root/etc/passwd")["exists"], true);
    });
}

#[test]
fn a_line_that_cannot_hold_is_refused() {
    sandbox(|s| {
        busybox_root(s, "root");
        s.sh("mkdir directory && ln -s x link && echo text >file").run().code(0);
        let notify = r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x","syscalls":[{"names":["keyctl"],"action":"SCMP_ACT_NOTIFY"}]}"#;
        fs::write("/srv/notify.json", notify).unwrap();
        let nested = format!("{TOOL} --report t --trace-fd 9 -- jc-rootfs --no-new-privs");
        for (line, tool, why) in [
            (format!("{TOOL} -- true"), TOOL, "no report"),
            (format!("{TOOL} --report t"), TOOL, "no program"),
            (format!("{TOOL} --report 1 -- true"), TOOL, "--report 1: descriptors up to 2"),
            (format!("{TOOL} --report directory -- true"), TOOL, "not a regular file"),
            (format!("{TOOL} --report link -- true"), TOOL, "not a regular file"),
            (format!("{TOOL} --report none/t -- true"), TOOL, "No such file or directory"),
            (format!("{TOOL} --report t --trace-fd 2 -- true"), TOOL, "descriptors up to 2"),
            (
                format!("{TOOL} --report t --trace-fd 9 -- true"),
                TOOL,
                "no link has sent a listener",
            ),
            (format!("{TOOL} --report t --usage 9 -- true"), TOOL, "needs --trace-fd"),
            (format!("{TOOL} --seccomp"), TOOL, "no report given"),
            (format!("{TOOL} --seccomp file"), TOOL, "file: expected ident"),
            (format!("{TOOL} --seccomp none"), TOOL, "open none: No such file"),
            (format!("{TOOL} --limits t0"), TOOL, "no usage of jc-cgroup"),
            (format!("{TOOL} --seccomp --exact t0"), TOOL, "lacks frequent calls"),
            (
                "jc-rootfs --trace-fd 9 root -- true".to_owned(),
                "jc-rootfs",
                "--trace-fd 9: Bad file",
            ),
            (
                format!("{nested} --trace-fd 9 --seccomp notify.json --state '{{}}' root -- true"),
                "jc-rootfs",
                "the profile has SCMP_ACT_NOTIFY",
            ),
        ] {
            s.sh(&format!("{TOOL} --report t0 -- true")).run().code(0);
            s.sh(&format!("exec {line}")).run().code(125).fails_as(tool, why);
        }
        s.sh("cat file").run().stdout("text\n");
    });
}
