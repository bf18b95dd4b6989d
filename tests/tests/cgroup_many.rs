//! Many runs of `jc-cgroup`, many concurrent runs, and many kills: no group remains. The tests run one at a time,
//! since a group of one test looks like a remaining group to another.

#![cfg(target_os = "linux")]

use std::fs;
use std::time::{Duration, Instant};

use jc_tests::cgroups::{ParentGroup, can_limit};
use jc_tests::time::alone;
use jc_tests::volume::{Random, volume};
use jc_tests::{Cmd, Running, Sandbox, sandbox, sandbox_for, skip};
use rustix::process::Signal;

const TOOL: &str = "jc-cgroup";
const LIMIT: Duration = Duration::from_secs(1200);

fn jc(s: &Sandbox, place: &ParentGroup) -> Cmd {
    s.jc(TOOL).args(["--parent", place.name()])
}

/// Checks that a list leaves no group.
fn is_empty(s: &Sandbox, place: ParentGroup) {
    jc(s, &place).arg("--list").run().code(0).stdout("").stderr("");
    s.wait_for_no_process();
    place.remove();
}

/// A background process that only SIGKILL ends, so that it survives a kill of the link.
const PAYLOAD: &str = "trap '' TERM HUP INT; setsid sleep 1000 >/dev/null 2>&1 & sleep 0.01";

fn start(s: &Sandbox, place: &ParentGroup) -> Running {
    let limits = ["-m", "64M", "--pids", "50", "--", "sh", "-c", PAYLOAD];
    jc(s, place).args(limits).spawn()
}

fn kill_at(running: &Running, start: Instant, delay: Duration) {
    while start.elapsed() < delay {
        std::hint::spin_loop();
    }
    running.signal(Signal::KILL);
}

#[test]
fn nothing_remains_of_many_runs_of_which_half_are_killed() {
    let _one = alone();
    sandbox_for(LIMIT, |s| {
        if !can_limit("memory") || !can_limit("pids") {
            skip!("this host has no memory or no pids controller");
        }
        let place = ParentGroup::make("tests-jc-series");
        let mut random = Random(6);
        for run in 0..100 * volume() {
            let running = start(s, &place);
            if run % 2 == 0 {
                kill_at(&running, Instant::now(), random.time_below(Duration::from_millis(8)));
                running.wait(); // killed, or ended before on a machine with other load
            } else {
                running.wait().code(0);
            }
        }
        is_empty(s, place);
    });
}

/// Starts programs in groups of the same name, beside actions of other processes. Every program must run to its end.
fn use_a_name_again(s: &Sandbox, place: &'static str, action: &str) {
    if !can_limit("memory") {
        skip!("this host has no memory controller");
    }
    let place = ParentGroup::make(place);
    let starts = "for n in $(seq 600); do jc-cgroup --parent $1 --name x -m 32M -- true || [ $? = 125 ] || exit; done";
    let actions = format!("for n in $(seq 1200); do jc-cgroup --parent $1 {action}; done");
    // A killed jc-cgroup leaves a dead group.
    let kills = "for n in $(seq 300); do
        jc-cgroup --parent $1 --name x -m 32M -- true & sleep 0.00$((n % 8)); kill -9 $!; wait $!; done 2>/dev/null; true";
    let spawn = |script: &&str| s.sh(script).args(["sh", place.name()]).spawn();
    let scripts = [starts, starts, kills, &actions, &actions];
    let all: Vec<Running> = scripts.iter().map(spawn).collect();
    for running in all {
        let ran = running.wait().code(0);
        assert!(ran.err().lines().all(|line| line.ends_with("/jc+x: in use")), "{ran}");
    }
    is_empty(s, place);
}

/// A sweep takes a new group for the dead one of the same name only if it does not compare the directories.
#[test]
fn a_name_is_used_again_beside_sweeps() {
    let _one = alone();
    let list = "--list >/dev/null || exit";
    sandbox_for(LIMIT, |s| use_a_name_again(s, "tests-jc-name", list));
}

/// A removal takes a new group for the dead one of the same name only if it does not keep its locks.
#[test]
fn a_name_is_used_again_beside_removals() {
    let _one = alone();
    let remove = "--remove x 2>/dev/null || [ $? = 125 ] || exit";
    sandbox_for(LIMIT, |s| use_a_name_again(s, "tests-jc-removals", remove));
}

/// A freeze that another process undoes must not wait, and a group that is removed during an action is an absent one.
#[test]
fn actions_at_once_have_plain_answers() {
    let _one = alone();
    sandbox_for(LIMIT, |s| {
        if !can_limit("pids") {
            skip!("this host has no pids controller");
        }
        let place = ParentGroup::make("tests-jc-actions");
        let spawn = |count: u32, action: &str| {
            let line = format!("for n in $(seq {count}); do {action}; done");
            s.sh(&line.replace("jc-cgroup", "jc-cgroup --parent tests-jc-actions")).spawn()
        };
        let start = "jc-cgroup --name x --pids 50 -- sleep 0.01";
        let freeze = "jc-cgroup --freeze x; jc-cgroup --thaw x";
        let update = "jc-cgroup --update x --pids 40; jc-cgroup --join x -- true";
        let kill = "jc-cgroup --kill x; sleep 0.02";
        let all =
            [(200, start), (200, start), (200, freeze), (200, freeze), (200, update), (100, kill)];
        let all = all.map(|(count, action)| spawn(count, action));
        let answers = [
            "in use",
            "no such group",
            "made without the pids controller",
            "another process has thawed it",
            "another process has frozen it",
            "a program would not run",
            "continues it",
        ];
        for running in all {
            let errors = running.wait().err();
            // A shell reports programs that a signal has ended.
            let lines = errors.lines().filter(|line| line.starts_with("jc-cgroup: "));
            let mut others = lines.filter(|line| !answers.iter().any(|end| line.ends_with(end)));
            assert_eq!(others.next(), None);
        }
        is_empty(s, place);
    });
}

#[test]
fn nothing_remains_of_fifty_at_once_of_which_half_are_killed() {
    let _one = alone();
    sandbox_for(LIMIT, |s| {
        if !can_limit("memory") || !can_limit("pids") {
            skip!("this host has no memory or no pids controller");
        }
        let place = ParentGroup::make("tests-jc-crowd");
        let mut random = Random(7);
        let crowd: Vec<(Running, bool)> = (0..50).map(|n| (start(s, &place), n % 2 == 0)).collect();
        let begin = Instant::now();
        for (running, _) in crowd.iter().filter(|(_, killed)| *killed) {
            kill_at(running, begin, begin.elapsed() + random.time_below(Duration::from_millis(4)));
        }
        let (killed, others): (Vec<_>, Vec<_>) = crowd.into_iter().partition(|(_, killed)| *killed);
        for (running, _) in others {
            running.wait().code(0);
        }
        for (running, _) in killed {
            running.wait(); // killed, or had ended before
        }
        is_empty(s, place);
    });
}

#[test]
fn the_first_instruction_is_inside_in_every_start() {
    let _one = alone();
    sandbox_for(LIMIT, |s| {
        if !can_limit("memory") || !can_limit("pids") {
            skip!("this host has no memory or no pids controller");
        }
        let place = ParentGroup::make("tests-jc-starts");
        let starts = 100 * volume() as usize;
        let script = format!(
            "for i in $(seq {starts}); do
            jc-cgroup --parent tests-jc-starts -m 64M --pids 9 -- cat /proc/self/cgroup || exit; done"
        );
        let ran = s.sh(&script).timeout(LIMIT).run().code(0);
        let inside = |line: &&str| line.contains(":/tests-jc-starts/jc+");
        // Version 1 has a line for each controller, and version 2 one line for all.
        let lines = ran.out().lines().filter(inside).count();
        assert!(lines >= starts && lines % starts == 0, "{lines} lines");
        let memory = ran.out().lines().filter(|l| l.contains("memory:")).filter(inside).count();
        assert!(memory == starts || !ran.out().contains("memory:"), "{memory} of memory");
        is_empty(s, place);
    });
}

/// Writing to cgroup.procs can wait for a grace period of the kernel; clone3(2) does not.
#[test]
fn version_2_is_joined_by_clone() {
    let _one = alone();
    sandbox(|s| {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        if !mounts.lines().any(|line| line.split(' ').nth(2) == Some("cgroup2")) {
            skip!("this host has no cgroup v2");
        }
        let trace = s.path("trace");
        s.cmd("strace")
            .args(["-f", "-e", "trace=openat,clone3", "-o"])
            .arg(&trace)
            .arg(s.bin(TOOL))
            .args(["--", "cat", "/proc/self/cgroup"])
            .run()
            .code(0);
        let trace = fs::read_to_string(trace).unwrap();
        assert!(trace.contains("CLONE_INTO_CGROUP"), "{trace}");
        let written = |line: &&str| line.contains("cgroup.procs") && line.contains("O_WRONLY");
        assert_eq!(trace.lines().filter(written).count(), 0, "{trace}");
    });
}
