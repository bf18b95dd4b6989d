//! `jc-cgroup`, alone.

#![cfg(target_os = "linux")]

use std::fs;
use std::path::Path;

use jc_tests::cgroups::{Controller, can_limit};
use jc_tests::contract::Chain;
use jc_tests::memory::has_written_less_than;
use jc_tests::{Running, Sandbox, keeps_the_contract, require, sandbox, skip};
use rustix::process::Signal;

const TOOL: &str = "jc-cgroup";

keeps_the_contract!(with_limits, ["jc-cgroup", "-m", "256M", "--pids", "64"], "jc-cgroup");
keeps_the_contract!(with_a_pid_namespace, ["jc-cgroup", "-p"], "jc-cgroup");
keeps_the_contract!(
    with_namespaces,
    ["jc-cgroup", "-puinC", "--hostname", "x", "--loopback"],
    "jc-cgroup"
);

/// Starts a payload that waits. Returns its PID too.
fn waiting(s: &Sandbox, options: &[&str]) -> (Running, u32) {
    let payload = ["--", "sh", "-c", "echo $$ ready; exec sleep 1000"];
    let mut running = s.jc(TOOL).args(options).args(payload).spawn();
    running.wait_for("ready");
    let pid = running.stdout_so_far().split(' ').next().unwrap().parse().unwrap();
    (running, pid)
}

fn end(running: Running) {
    running.signal(Signal::TERM);
    running.wait().code(143);
}

#[test]
fn a_signal_cannot_come_too_early() {
    sandbox(|s| Chain::new(s, &[TOOL, "--pids", "9"], TOOL).hears_early_signals());
    sandbox(|s| Chain::new(s, &[TOOL, "-p"], TOOL).hears_early_signals());
}

#[test]
fn the_program_is_pid_1_if_asked_for() {
    sandbox(|s| {
        let script = "echo $$; sleep 1000 & exit 3";
        s.jc(TOOL).args(["-p", "--", "sh", "-c", script]).run().code(3).stdout("1\n").stderr("");
        s.wait_for_no_process();
        // A process alone, and a process below a waiting link.
        let waits = ["-p", "--", "sh", "-c", "echo ready; exec sleep 1000"];
        let mut running = s.jc(TOOL).args(waits).spawn();
        running.wait_for("ready");
        assert_eq!(s.cmd("pidof").arg(TOOL).run().code(0).out().split_whitespace().count(), 1);
        running.signal(Signal::KILL);
        running.wait().killed_by(Signal::KILL);
        s.wait_for_no_process();

        for option in ["--exec", "--join=x"] {
            let ran = s.jc(TOOL).args([option, "-p", "--", "true"]).run();
            ran.code(125).stdout("").fails_as(TOOL, "no namespaces are made with");
        }
        let before = ["--bounding-set=-sys_admin", TOOL, "-p", "--name", "refused", "--", "true"];
        let ran = s.cmd("setpriv").args(before).run();
        let error = "jc-cgroup: clone3: Operation not permitted\njc-cgroup: hint: this process is root without CAP_SYS_ADMIN";
        assert!(ran.err().starts_with(error), "{ran}");
        ran.code(125).stdout("");
        assert!(!s.jc(TOOL).arg("--list").run().code(0).out().contains("refused"));
    });
}

#[test]
fn the_program_begins_in_the_namespaces_that_are_asked_for() {
    sandbox(|s| {
        let kinds = "cd /proc/self/ns; for kind in pid uts ipc net cgroup; do readlink $kind; done";
        let outside = s.sh(kinds).run().code(0).out();
        for (option, new) in [("-p", 0), ("-u", 1), ("-i", 2), ("-n", 3), ("-C", 4)] {
            let inside = s.jc(TOOL).args([option, "--", "sh", "-c", kinds]).run().code(0).out();
            let differ = inside.lines().zip(outside.lines()).map(|(inside, out)| inside != out);
            let expected = (0..5).map(|kind| kind == new);
            assert_eq!(differ.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "{option}");
        }
        let names = "hostname; cat /proc/sys/kernel/domainname";
        s.jc(TOOL)
            .args(["-u", "--hostname", "box", "--domainname", "lan", "--", "sh", "-c", names])
            .run()
            .code(0)
            .stdout("box\nlan\n");
        let addresses = ["ip", "-o", "addr"];
        s.jc(TOOL).args(["-n", "--"]).args(addresses).run().code(0).stdout("");
        let up = s.jc(TOOL).args(["-n", "--loopback", "--"]).args(addresses).run().code(0);
        assert!(up.out().contains("127.0.0.1/8"), "{up}");
        // The group is the root of the cgroup namespace.
        let own = "grep ^0:: /proc/self/cgroup";
        assert!(s.jc(TOOL).args(["--", "sh", "-c", own]).run().code(0).out().contains("/jc+"));
        s.jc(TOOL).args(["-C", "--", "sh", "-c", own]).run().code(0).stdout("0::/\n");

        for (option, needed) in
            [("--hostname=x", "-u"), ("--domainname=x", "-u"), ("--loopback", "-n")]
        {
            let ran = s.jc(TOOL).args([option, "--", "true"]).run();
            ran.code(125).stdout("").fails_as(TOOL, needed);
        }
        let ran = s.cmd("setpriv").args(["--bounding-set=-sys_admin", TOOL, "-C", "true"]).run();
        let error = "jc-cgroup: unshare: Operation not permitted\njc-cgroup: hint: this process is root without CAP_SYS_ADMIN";
        assert!(ran.err().starts_with(error), "{ran}");
        ran.code(125).stdout("");
    });
}

#[test]
fn an_option_without_effect_is_refused() {
    sandbox(|s| {
        let refuses = |words: &[&str], error: &str| {
            s.jc(TOOL).args(words).run().code(125).stdout("").fails_as(TOOL, error);
        };
        for limit in ["-m64M", "--memory-high=1M", "--pids=9"] {
            refuses(&["--join", "x", limit, "--", "true"], "only a new group and --update have");
            refuses(&["--stat", "x", limit], "only a new group and --update have limits");
        }
        for option in ["--name=a", "--path=/a", "--delegate", "--report=1", "--exec"] {
            refuses(&["--list", option], "cannot be used with");
        }
        for option in ["-p", "-u", "-i", "-n", "-C"] {
            refuses(&["--list", option], "no namespaces are made with");
        }
    });
}

#[test]
fn a_program_is_needed() {
    sandbox(|s| {
        s.jc(TOOL).run().code(125).stdout("").fails_as(TOOL, "program");
        s.jc(TOOL).args(["-m", "1G"]).run().code(125).stdout("").fails_as(TOOL, "program");
    });
}

#[test]
fn the_kernel_holds_the_limits_that_were_asked_for() {
    sandbox(|s| {
        if !can_limit("memory") || !can_limit("pids") {
            skip!("this host has no memory or no pids controller");
        }
        for (size, bytes) in
            [("64M", 64 << 20), ("65536k", 64 << 20), ("1g", 1 << 30), ("1.5G", 3 << 29)]
        {
            let (running, pid) = waiting(s, &["-m", size, "--pids", "7"]);
            let memory = Controller::of(pid, "memory").unwrap();
            let bytes = bytes.to_string();
            assert_eq!(memory.read("memory.limit_in_bytes", "memory.max"), bytes, "{size}");
            let swap = memory.dir.join("memory.memsw.limit_in_bytes");
            if memory.v2 && memory.dir.join("memory.swap.max").exists() {
                assert_eq!(memory.read("", "memory.swap.max"), "0", "{size}");
            } else if swap.exists() {
                assert_eq!(fs::read_to_string(swap).unwrap().trim(), bytes, "{size}");
            }
            let pids = Controller::of(pid, "pids").unwrap();
            assert_eq!(pids.read("pids.max", "pids.max"), "7");
            assert_ne!(memory.dir, Controller::of(std::process::id(), "memory").unwrap().dir);
            end(running);
            assert!(!memory.dir.exists() && !pids.dir.exists());
        }
    });
}

#[test]
fn each_run_has_a_group_of_its_own() {
    sandbox(|s| {
        if !can_limit("memory") {
            skip!("this host has no memory controller");
        }
        let (one, first) = waiting(s, &["-m", "64M"]);
        let (two, second) = waiting(s, &["-m", "64M"]);
        let [first, second] = [first, second].map(|pid| Controller::of(pid, "memory").unwrap().dir);
        assert_ne!(first, second);
        end(one);
        assert!(!first.exists() && second.exists());
        end(two);
    });
}

#[test]
fn a_waiting_link_writes_to_little_memory() {
    sandbox(|s| {
        let options = ["-m", "64M", "--pids", "20", "--report", "r", "--"];
        let payload = ["sh", "-c", "echo ready; exec sleep 1000"];
        let mut link = s.jc(TOOL).args(options).args(payload).spawn();
        link.wait_for("ready");
        has_written_less_than(&link, 500);
        end(link);
    });
}

#[test]
fn a_program_that_takes_too_much_memory_is_killed() {
    sandbox(|s| {
        if !can_limit("memory") {
            skip!("this host has no memory controller");
        }
        let dd = |size| ["dd", "if=/dev/zero", "of=/dev/null", "count=1", "status=none", size];
        s.jc(TOOL).args(["-m", "64M", "--"]).args(dd("bs=200M")).run().code(137).stdout("");
        s.jc(TOOL).args(["-m", "64M", "--"]).args(dd("bs=20M")).run().code(0);
    });
}

#[test]
fn too_many_processes_do_not_start() {
    sandbox(|s| {
        if !can_limit("pids") {
            skip!("this host has no pids controller");
        }
        // bash reports the failed fork and continues. bash is one process, and nine are its children.
        let script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done 2>err
            jobs -p | wc -l; kill $(jobs -p)";
        let run = |n| {
            let ran =
                s.jc(TOOL).args(["--pids", n, "--", "timeout", "3", "bash", "-c", script]).run();
            let err = fs::read_to_string(s.path("err")).unwrap_or_default();
            (ran, err)
        };
        let (ran, err) = run("40");
        ran.code(0).stdout("9\n");
        assert_eq!(err, "");
        let (_, err) = run("6");
        assert!(err.contains("Resource temporarily unavailable"), "{err:?}");
    });
}

#[test]
fn processes_that_stay_behind_are_killed() {
    sandbox(|s| {
        if !can_limit("memory") {
            skip!("this host has no memory controller");
        }
        let script = "cat /proc/self/cgroup; setsid sleep 1000 >/dev/null 2>&1 & exit 3";
        s.jc(TOOL).args(["-m", "64M", "--", "sh", "-c", script]).run().code(3);
        s.wait_for_no_process();
    });
}

#[test]
fn the_next_run_sweeps_the_group_of_a_killed_one() {
    sandbox(|s| {
        if !can_limit("memory") || !can_limit("pids") {
            skip!("this host has no memory or no pids controller");
        }
        let (memory, pids) = (["-m", "64M"], ["--pids", "9"]);
        let both = ["-m", "64M", "--pids", "9"];
        // A run of another test may remove the groups first, so there are several attempts.
        let killed = |options: &[&str]| {
            let (running, pid) = waiting(s, options);
            let groups =
                ["memory", "pids"].map(|controller| Controller::of(pid, controller).unwrap().dir);
            running.signal(Signal::KILL);
            running.wait().killed_by(Signal::KILL);
            s.wait_for_no_process();
            groups.iter().all(|group| group.exists()).then_some(groups)
        };
        for (options, next) in [(&both[..], &both[..]), (&both, &memory), (&both, &pids)] {
            let groups = (0..50).find_map(|_| killed(options)).expect("a kill leaves groups");
            s.jc(TOOL).args(next).args(["--", "true"]).run().code(0);
            let left: Vec<_> = groups.iter().filter(|group| group.exists()).collect();
            // The groups of concurrent tests are removed too.
            s.jc(TOOL).args(both).args(["--", "true"]).run().code(0);
            assert!(left.is_empty(), "still there after {next:?}: {left:?}");
        }
    });
}

#[test]
fn a_group_of_a_live_run_is_not_swept() {
    sandbox(|s| {
        if !can_limit("memory") {
            skip!("this host has no memory controller");
        }
        let (running, pid) = waiting(s, &["-m", "64M"]);
        for _ in 0..5 {
            s.jc(TOOL).args(["-m", "64M", "--", "true"]).run().code(0);
        }
        let memory = Controller::of(pid, "memory").unwrap();
        assert_eq!(memory.read("memory.limit_in_bytes", "memory.max"), (64 << 20).to_string());
        end(running);
    });
}

#[test]
fn a_word_that_is_no_limit_is_refused() {
    sandbox(|s| {
        for size in ["0", "-1", "64X", "", "M", "1e9", "99999999T"] {
            let option = format!("--memory={size}");
            let ran = s.jc(TOOL).args([&option, "--", "echo", "ran"]).run();
            ran.code(125).stdout("").fails_as(TOOL, "memory");
        }
        for count in ["0", "-2", "x", "", "1.5"] {
            let option = format!("--pids={count}");
            let ran = s.jc(TOOL).args([&option, "--", "echo", "ran"]).run();
            ran.code(125).stdout("").fails_as(TOOL, "pids");
        }
    });
}

/// A limit that the hierarchies lack is an error, and no run happens without the limit.
#[test]
fn a_limit_that_the_host_cannot_hold_is_an_error() {
    sandbox(|s| {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let groups: Vec<&str> = mounts
            .lines()
            .filter(|line| line.split(' ').nth(2).is_some_and(|kind| kind.starts_with("cgroup")))
            .filter_map(|line| line.split(' ').nth(1))
            .collect();
        let all = groups.join(" ");
        assert!(Path::new(groups[0]).is_dir());
        for (how, how_much) in [
            (format!("umount -l {all}"), ["-m", "64M"]),
            (format!("umount -l {all}"), ["--pids", "8"]),
            (
                format!("for g in {all}; do mount -o remount,bind,ro $g || exit 99; done"),
                ["-m", "64M"],
            ),
        ] {
            let limit = how_much.join(" ");
            let script = format!("{how}; exec jc-cgroup {limit} -- echo ran");
            let ran = s.cmd("unshare").args(["-m", "sh", "-c", &script]).run();
            ran.code(125).stdout("").fails_as(TOOL, "");
        }
    });
}

/// An error of a lookup means neither an unlocked group nor an absent one.
#[test]
fn a_failed_lookup_removes_no_locked_group() {
    sandbox(|s| {
        require(s, "strace", "the package strace");
        let (running, pid) = waiting(s, &["--name", "held"]);
        let traced = |action: &str, options: &[&str]| {
            let strace = s.cmd("strace").args(["--quiet=all"]).args(options);
            strace.args([TOOL, action, "held"]).run()
        };
        for action in ["--remove", "--stat"] {
            traced(action, &["-o", "trace"]);
            let trace = fs::read_to_string(s.path("trace")).unwrap();
            for call in ["open", "openat", "flock", "newfstatat", "stat", "statx", "statfs", "read"]
            {
                let count =
                    trace.lines().filter(|line| line.starts_with(&format!("{call}("))).count();
                for n in 1..=count {
                    let inject = format!("inject={call}:error=EIO:when={n}");
                    let ran = traced(action, &["-o", "/dev/null", "-e", &inject]);
                    let code = ran.status().code();
                    assert!(action == "--stat" || code != Some(0), "{inject}\n{ran}");
                    assert!(fs::exists(format!("/proc/{pid}")).unwrap(), "{inject}\n{ran}");
                    s.jc(TOOL).args(["--stat", "held"]).run().code(0);
                }
            }
        }
        end(running);
    });
}
