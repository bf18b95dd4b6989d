//! Many containers on a bridge, many starts at once, and many that are killed: nothing remains.
//! One at a time: either would disturb what the other measures and waits for.

#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use jc_tests::time::alone;
use jc_tests::{Cmd, Running, Sandbox, sandbox_for, workspace_dir};
use rustix::process::Signal;

const TOOL: &str = "jc-net";
const LIMIT: Duration = Duration::from_secs(280);

/// Numbers that look random and are the same in each run (Knuth's MMIX generator).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// The time of a start that ends at once, in that of a program that only sends the same messages
/// (`net_support/minimal.c`): medians of ten, taken in turns. The kernel itself needs longer where a
/// bridge has many ports, and has to do for those that are there. Nor has it to take the cable of the
/// one before down meanwhile: each start waits until only so many are plugged in.
fn start_time(s: &Sandbox, plugged: usize) -> f64 {
    let source = workspace_dir().join("tests/tests/net_support/minimal.c");
    let minimal = s.path("minimal");
    s.cmd("cc").args(["-O2", "-static", "-o"]).args([&minimal, &source]).run().code(0);
    let list = "ip -6 -o addr show dev jc0 scope global | tr -s ' ' | cut -d' ' -f4 | cut -d/ -f1";
    let gateway = s.sh(list).run().code(0).out();
    let took = |command: Cmd| {
        until_listed(s, plugged);
        let start = Instant::now();
        command.run().code(0);
        start.elapsed()
    };
    let (mut ours, mut least) = ([Duration::ZERO; 10], [Duration::ZERO; 10]);
    for (ours, least) in ours.iter_mut().zip(&mut least) {
        *ours = took(s.jc(TOOL).args(["--", "true"]));
        *least = took(s.cmd(&minimal).args([gateway.trim(), "true"]));
    }
    median(&mut ours).as_secs_f64() / median(&mut least).as_secs_f64()
}

/// Nothing of this tool is in the host's network namespace.
fn nothing_remains(s: &Sandbox) {
    s.wait_for_no_process();
    s.jc(TOOL).arg("--gc").run().code(0).stdout("").stderr("");
    s.jc(TOOL).arg("--list").run().code(0).stdout("").stderr("");
    s.sh("nft list ruleset").run().code(0).stdout("");
    let links = s.sh("ip -o link | grep -c .").run().out();
    assert_eq!(links, "1\n", "only loopback");
}

/// All in namespaces of their own, which a shell keeps: a thousand programs that wait, in one wait.
#[test]
fn a_thousand_on_one_bridge() {
    let _one = alone();
    sandbox_for(LIMIT, |s| {
        let first = s.jc(TOOL).args(["--", "sleep", "1000"]).spawn();
        let few = "for i in $(seq 9); do jc-net -- sleep 1000 & done; echo ready; wait";
        let mut tenth = s.sh(few).spawn();
        tenth.wait_for("ready");
        until_listed(s, 10);
        let early = start_time(s, 10);
        let many =
            "for i in $(seq 980); do jc-net -- sleep 1000 & [ $((i % 20)) != 0 ] || sleep 0.2
            done; echo ready; wait";
        let mut rest = s.sh(many).timeout(LIMIT).spawn();
        rest.wait_for("ready");
        let listed = until_listed(s, 990);
        let distinct: BTreeSet<&str> =
            listed.lines().map(|line| line.split('\t').nth(2).unwrap()).collect();
        assert_eq!(distinct.len(), 990);
        // Whatever else runs only adds to it.
        let is_as_quick = (0..3).any(|_| {
            let late = start_time(s, 990);
            eprintln!("the 10th {early:.2} times the least, the 1,000th {late:.2}");
            late < early * 1.5
        });
        assert!(is_as_quick, "the 1,000th takes longer than the kernel has to");
        let start = Instant::now();
        s.sh("kill -9 -1").run();
        for running in [first, tenth, rest] {
            running.wait();
        }
        s.wait_for_no_process();
        while !s.jc(TOOL).arg("--list").run().code(0).out().is_empty() {
            assert!(start.elapsed() < Duration::from_secs(60), "still there");
            thread::sleep(Duration::from_millis(50));
        }
        nothing_remains(s);
    });
}

/// Waits until so many are plugged in.
fn until_listed(s: &Sandbox, count: usize) -> String {
    let start = Instant::now();
    loop {
        let listed = s.jc(TOOL).arg("--list").run().code(0).out();
        if listed.lines().count() == count {
            return listed;
        }
        let found = listed.lines().count();
        assert!(start.elapsed() < Duration::from_secs(120), "{found} of {count}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Half of the rounds kill some process of the chain at some moment. A subnet that has just as many
/// addresses as there are starts: none fails for want of one.
#[test]
fn fifty_at_once_and_some_killed() {
    let _one = alone();
    sandbox_for(LIMIT, |s| {
        let mut random = Random(7);
        for round in 0..20 {
            let kills = round % 2 == 1;
            let options = ["--bridge", "b0", "--subnet", "10.7.0.0/26", "-p"];
            let start = |i: u32| -> Running {
                let port = format!("{}:80", 9000 + i);
                // A third holds ports; behind the cable is a PID namespace, as in a chain.
                let options = if i.is_multiple_of(3) {
                    [&options[..], &[&port]].concat()
                } else {
                    options[..4].to_vec()
                };
                let program =
                    ["--", "jc-unshare", "-p", "--", "sh", "-c", "sleep 0.05; ip -4 route"];
                s.jc(TOOL).args(options).args(program).spawn()
            };
            let mut crowd: Vec<Running> = (0..50).map(start).collect();
            if kills {
                for _ in 0..40 {
                    thread::sleep(Duration::from_micros(random.below(4000)));
                    kill_one(&mut random);
                }
            }
            for running in crowd.drain(..) {
                let ran = running.wait();
                assert!(!ran.err().contains("full"), "{ran}");
                if !kills {
                    assert!(ran.out().contains("default via 10.7.0.1"), "{ran}");
                    ran.code(0).stderr("");
                }
            }
            s.wait_for_no_process();
            // The sockets of the killed are freed by the kernel in its own time.
            thread::sleep(Duration::from_millis(100));
            nothing_remains(s);
        }
        let left: Vec<_> = fs::read_dir("/run").unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, ["mount"]);
    });
}

/// Kills some process in the sandbox, but for this one.
fn kill_one(random: &mut Random) {
    let numbers = fs::read_dir("/proc").unwrap().flatten();
    let numbers: Vec<i32> = numbers
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != 1)
        .collect();
    if let Some(pid) = numbers.get(random.below(numbers.len().max(1) as u64) as usize) {
        let pid = rustix::process::Pid::from_raw(*pid).unwrap();
        // Gone already is as good.
        let _: rustix::io::Result<()> = rustix::process::kill_process(pid, Signal::KILL);
    }
}
