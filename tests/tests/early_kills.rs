//! A signal reaches the first child of a waiting link at a random instruction, while the child still shares the
//! memory of the link. The link ends with the status of the child, and leaves no objects behind.

#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use jc_tests::cgroups::can_limit;
use jc_tests::roots::busybox_root;
use jc_tests::volume::{Random, volume};
use jc_tests::{Sandbox, sandbox_for, skip};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, kill_process, kill_process_group, pidfd_open, wait,
};

/// The number of signals of each test, times `JC_TEST_VOLUME`.
const KILLS: u32 = 100;

/// The time until a child has executed its program.
const MOMENTS: Duration = Duration::from_micros(500);

/// The time limit for the end of a link after a signal, on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

/// The processes that receive a signal.
#[derive(Clone, Copy)]
enum Target {
    /// The first child alone.
    Child,
    /// The process group, which receives the signals of terminal keys.
    Group,
}

fn start(s: &Sandbox, chain: &[&str]) -> Child {
    Command::new(s.bin(chain[0]))
        .args(&chain[1..])
        .env("PATH", format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", s.bin("").display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap()
}

/// Waits until the process has a child, or has ended.
fn first_child(of: u32) -> Option<Pid> {
    let path = format!("/proc/{of}/task/{of}/children");
    loop {
        let children = fs::read_to_string(&path).ok()?;
        if let Some(pid) = children.split_whitespace().next() {
            return Pid::from_raw(pid.parse().unwrap());
        }
        let stat = fs::read_to_string(format!("/proc/{of}/stat")).ok()?;
        if stat.contains(") Z ") {
            return None;
        }
    }
}

/// Starts the chain and sends the signal after a delay. Returns whether the signal ended the chain.
fn meets(s: &Sandbox, chain: &[&str], signal: Signal, target: Target, delay: Duration) -> bool {
    let mut link = start(s, chain);
    let group = Pid::from_child(&link);
    let child = first_child(link.id());
    let since = Instant::now();
    while since.elapsed() < delay {
        std::hint::spin_loop();
    }
    // The process may have ended.
    let _: rustix::io::Result<()> = match (target, child) {
        (Target::Child, None) => Ok(()),
        (Target::Child, Some(child)) => kill_process(child, signal),
        (Target::Group, _) => kill_process_group(group, signal),
    };
    let pidfd = pidfd_open(group, PidfdFlags::empty()).unwrap();
    let limit = Timespec::try_from(LIMIT).unwrap();
    let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)).unwrap();
    assert_eq!(ended, 1, "{chain:?} goes on after {signal:?} at {delay:?}");
    let status = link.wait().unwrap();
    let number = signal.as_raw();
    match (status.code(), status.signal()) {
        (Some(0), None) => false,
        (Some(code), None) if code == 128 + number => true,
        (None, Some(by)) if by == number && matches!(target, Target::Group) => true,
        _ => panic!("{chain:?} after {signal:?} at {delay:?}: {status}"),
    }
}

/// Sends many signals.
fn survives(s: &Sandbox, chain: &[&str], signal: Signal, target: Target) {
    let mut random = Random(7);
    let idle = s.processes().len();
    let mut met = 0;
    for _ in 0..KILLS * volume() {
        met += u32::from(meets(s, chain, signal, target, random.time_below(MOMENTS)));
        let since = Instant::now();
        // PID 1 of the sandbox reaps orphans, since a PID namespace ends after its last process is reaped.
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        while s.processes().len() > idle {
            assert!(since.elapsed() < LIMIT, "{chain:?} leaves {:?}", s.processes());
            sleep(Duration::from_micros(200));
        }
    }
    println!("{chain:?}: {met} of {} chains met {signal:?}", KILLS * volume());
    assert!(met > 0, "no signal met a chain");
    s.sh("jc-list -aq").run().code(0);
}

/// Sends both kinds of signals, with a payload that ends at once.
fn survives_both(s: &Sandbox, chain: &[&str]) {
    survives(s, chain, Signal::KILL, Target::Child);
    survives(s, chain, Signal::INT, Target::Group);
}

/// The time limit of a test.
fn time() -> Duration {
    Duration::from_secs(120) * volume()
}

#[test]
fn jc_unshare_ends_when_its_child_is_killed_early() {
    sandbox_for(time(), |s| survives_both(s, &["jc-unshare", "-p", "--", "true"]));
}

#[test]
fn jc_cgroup_ends_when_its_child_is_killed_early() {
    sandbox_for(time(), |s| {
        if !can_limit("memory") {
            skip("there is no memory controller");
        }
        survives_both(s, &["jc-cgroup", "-m", "32M", "--", "true"]);
    });
}

#[test]
fn jc_net_ends_when_its_child_is_killed_early() {
    sandbox_for(time(), |s| survives_both(s, &["jc-net", "-p", "8080:80", "--", "true"]));
}

#[test]
fn jc_egress_ends_when_its_child_is_killed_early() {
    sandbox_for(time(), |s| {
        survives_both(s, &["jc-egress", "--allow", "a.example:80", "--", "true"]);
    });
}

#[test]
fn jc_run_ends_when_its_child_is_killed_early() {
    sandbox_for(time(), |s| {
        busybox_root(s, "root");
        let chain = ["jc-run", "--network", "none", "--rootfs", "/srv/root", "--", "true"];
        survives_both(s, &chain);
    });
}

#[test]
fn jc_exec_ends_when_its_child_is_killed_early() {
    sandbox_for(time(), |s| {
        busybox_root(s, "root");
        s.sh("jc-run -d --name c --network none --rootfs root -- sleep 1000").run().code(0);
        survives_both(s, &["jc-exec", "c", "true"]);
        s.sh("jc-stop c && jc-rm c").run().code(0);
    });
}
