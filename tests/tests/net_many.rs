//! Many containers on a bridge, many concurrent starts, and many kills: no object remains. The tests run one at a
//! time, since each waits for the end of its own containers.

#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use jc_tests::lab::wait_until_listed;
use jc_tests::time::alone;
use jc_tests::volume::{Random, volume};
use jc_tests::{Running, Sandbox, sandbox_for};
use rustix::process::Signal;

const TOOL: &str = "jc-net";
const LIMIT: Duration = Duration::from_secs(1200);

/// Panics unless a sweep soon leaves no rule and no link in the network namespace of the host. The kernel frees
/// sockets and namespaces of killed processes asynchronously.
fn nothing_remains(s: &Sandbox) {
    let start = Instant::now();
    s.wait_for_no_process();
    loop {
        s.jc(TOOL).arg("--gc").run().code(0).stdout("").stderr("");
        let listed = s.jc(TOOL).arg("--list").run().code(0).stderr("").out();
        let rules = s.sh("nft list ruleset").run().code(0).out();
        let links = s.sh("ip -o link | grep -cv ' lo:'").run().out();
        let left = format!("{listed}{rules}{links}");
        if left == "0\n" {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "left: {left}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Each container has a network namespace. A volume of 10 makes a thousand containers.
#[test]
fn many_containers_on_one_bridge_have_an_address_each_and_leave_nothing() {
    let _one = alone();
    sandbox_for(LIMIT, |s| {
        let count = (100 * volume()).min(990) as usize;
        let script = format!(
            "for i in $(seq {count}); do jc-net -- sleep 1000 & [ $((i % 20)) != 0 ] || sleep 0.2
            done; wait"
        );
        let crowd = s.sh(&script).timeout(LIMIT).spawn();
        let listed = wait_until_listed(s, count);
        let distinct: BTreeSet<&str> =
            listed.lines().map(|line| line.split('\t').nth(2).unwrap()).collect();
        assert_eq!(distinct.len(), count);
        s.sh("kill -9 -1").run();
        crowd.wait();
        s.wait_for_no_process();
        wait_until_listed(s, 0);
        nothing_remains(s);
    });
}

/// Half of the rounds kill a random process of the chain at a random time. The subnet has exactly as many addresses
/// as there are starts, and no start fails for a lack of addresses.
#[test]
fn nothing_remains_of_fifty_starts_at_once_of_which_some_are_killed() {
    let _one = alone();
    sandbox_for(LIMIT, |s| {
        let mut random = Random(7);
        for round in 0..4 * volume() {
            let kills = round % 2 == 1;
            let options = ["--bridge", "b0", "--subnet", "10.7.0.0/26", "-p"];
            let start = |i: u32| -> Running {
                let port = format!("{}:80", 9000 + i);
                // A third of the chains publish ports. A PID namespace follows the network, as in a chain of jc-run.
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
                    thread::sleep(random.time_below(Duration::from_millis(4)));
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
            nothing_remains(s);
        }
        let left: Vec<_> = fs::read_dir("/run").unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, ["mount"]);
    });
}

/// Kills a random process of the sandbox except this one.
fn kill_one(random: &mut Random) {
    let numbers = fs::read_dir("/proc").unwrap().flatten();
    let numbers: Vec<i32> = numbers
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != 1)
        .collect();
    if let Some(pid) = numbers.get(random.below(numbers.len().max(1) as u64) as usize) {
        let pid = rustix::process::Pid::from_raw(*pid).unwrap();
        // The process may have ended.
        let _: rustix::io::Result<()> = rustix::process::kill_process(pid, Signal::KILL);
    }
}
