//! Many runs of `jc-cgroup`, many at once, and many that are killed: nothing remains. And how long one
//! of many takes. One at a time: what one test has in the machine's hierarchies looks to another like
//! something left behind.

#![cfg(target_os = "linux")]

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use jc_tests::cgroups::{Place, can_limit};
use jc_tests::time::{alone, start_times};
use jc_tests::{Cmd, Running, Sandbox, sandbox, sandbox_for, skip};
use rustix::process::Signal;

const TOOL: &str = "jc-cgroup";
const LIMIT: Duration = Duration::from_secs(120);

/// Numbers that look random and are the same in each run (Knuth's MMIX generator).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: Duration) -> Duration {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let fraction = u128::from(self.0 >> 32);
        Duration::from_nanos(((limit.as_nanos() * fraction) >> 32) as u64)
    }
}

fn jc(s: &Sandbox, place: &Place) -> Cmd {
    s.jc(TOOL).args(["--parent", place.name()])
}

/// The one-line check of the whole: after a list nothing is left.
fn is_empty(s: &Sandbox, place: Place) {
    jc(s, &place).arg("--list").run().code(0).stdout("").stderr("");
    s.wait_for_no_process();
    place.remove();
}

/// Something in the background that no other signal ends, so that a kill of the link leaves it.
const PAYLOAD: &str = "trap '' TERM HUP INT; setsid sleep 1000 >/dev/null 2>&1 & sleep 0.01";

fn start(s: &Sandbox, place: &Place) -> Running {
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
fn five_hundred_one_after_another_half_of_them_killed() {
    let _one = alone();
    sandbox_for(LIMIT, |s| {
        if !can_limit("memory") || !can_limit("pids") {
            skip!("this host has no memory or no pids controller");
        }
        let place = Place::make("tests-jc-series");
        let mut random = Random(6);
        for run in 0..500 {
            let running = start(s, &place);
            if run % 2 == 0 {
                kill_at(&running, Instant::now(), random.below(Duration::from_millis(8)));
                running.wait().killed_by(Signal::KILL);
            } else {
                running.wait().code(0);
            }
        }
        is_empty(s, place);
    });
}

#[test]
fn fifty_at_once_half_of_them_killed() {
    let _one = alone();
    sandbox_for(LIMIT, |s| {
        if !can_limit("memory") || !can_limit("pids") {
            skip!("this host has no memory or no pids controller");
        }
        let place = Place::make("tests-jc-crowd");
        let mut random = Random(7);
        let crowd: Vec<(Running, bool)> = (0..50).map(|n| (start(s, &place), n % 2 == 0)).collect();
        let begin = Instant::now();
        for (running, _) in crowd.iter().filter(|(_, killed)| *killed) {
            kill_at(running, begin, begin.elapsed() + random.below(Duration::from_millis(4)));
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
fn the_first_instruction_is_inside_in_a_thousand_starts() {
    let _one = alone();
    sandbox_for(LIMIT, |s| {
        if !can_limit("memory") || !can_limit("pids") {
            skip!("this host has no memory or no pids controller");
        }
        let place = Place::make("tests-jc-starts");
        let script = "i=0; while [ $i -lt 1000 ]; do i=$((i + 1))
            jc-cgroup --parent tests-jc-starts -m 64M --pids 9 -- cat /proc/self/cgroup || exit; done";
        let ran = s.sh(script).timeout(LIMIT).run().code(0);
        let inside = |line: &&str| line.contains(":/tests-jc-starts/jc+");
        // Version 1 has a line for each controller, version 2 one for all.
        let lines = ran.out().lines().filter(inside).count();
        assert!(lines >= 1000 && lines % 1000 == 0, "{lines} lines");
        let memory = ran.out().lines().filter(|l| l.contains("memory:")).filter(inside).count();
        assert!(memory == 1000 || !ran.out().contains("memory:"), "{memory} of memory");
        is_empty(s, place);
    });
}

#[test]
fn less_than_a_millisecond_more() {
    let _one = alone();
    sandbox_for(LIMIT, |s| {
        if std::env::var_os("JC_BIN_DIR").is_none() {
            skip!("this is about the programs as `make` builds them");
        }
        if !fs::read_to_string("/proc/self/mounts").unwrap().contains(" cgroup2 ") {
            skip!("this host has no cgroup version 2");
        }
        let commands = || {
            let mut linked = Command::new(s.bin(TOOL));
            linked.args(["--", "/bin/true"]);
            [linked, Command::new("/bin/true")]
        };
        // Whatever else runs, such as the end of groups that others had, only adds to it.
        let is_less = (0..4).any(|_| {
            let [linked, alone] = start_times(commands(), 300);
            eprintln!("{linked:?}, without {alone:?}");
            linked < alone + Duration::from_millis(1)
        });
        assert!(is_less, "a millisecond or more is added");
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
