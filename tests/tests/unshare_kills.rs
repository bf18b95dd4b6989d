//! Kills of a waiting link of jc-unshare at any moment: no process of its namespace remains.

#![cfg(target_os = "linux")]

use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use jc_tests::roots::busybox_root;
use jc_tests::volume::{Random, volume};
use jc_tests::{Running, Sandbox, sandbox_for};
use rustix::process::Signal;

/// The number of kills of a chain at a volume of 1, and of a chain that differs from another only in the source of
/// its IDs.
const MANY: u32 = 60;
const SOME: u32 = 20;

/// The time limit of a test.
fn limit() -> Duration {
    Duration::from_secs(120) * volume()
}

/// Background children that SIGTERM, SIGHUP and SIGINT do not end, one of them in another session.
const PAYLOAD: &str =
    "trap '' TERM HUP INT; setsid sleep 1000 & sleep 1000 & echo ready; sleep 1000; :";

/// Kills the first process of a chain at random moments: from its start until the payload has all of its processes.
/// Every tenth kill comes in the first 200 microseconds.
fn survives_no_kill(s: &Sandbox, kills: u32, chain: &[&str]) {
    let kills = kills * volume();
    let command = || s.cmd(chain[0]).args(&chain[1..]).args(["--", "sh", "-c", PAYLOAD]);
    let start = Instant::now();
    let mut running = command().spawn();
    running.wait_for("ready");
    let latest = start.elapsed() * 3 / 2;
    end(s, running);

    let mut random = Random(4);
    let mut complete = 0;
    for kill in 0..kills {
        let limit = if kill % 10 == 0 { Duration::from_micros(200) } else { latest };
        let delay = random.time_below(limit);
        let running = command().spawn();
        let start = Instant::now();
        while start.elapsed() < delay {
            std::hint::spin_loop();
        }
        complete += u32::from(running.stdout_so_far().contains("ready"));
        end(s, running);
    }
    assert!((1..kills).contains(&complete), "{complete} kills have met a complete payload");
}

fn end(s: &Sandbox, running: Running) {
    running.signal(Signal::KILL);
    running.wait().killed_by(Signal::KILL);
    s.wait_for_no_process();
}

#[test]
fn no_kill_leaves_a_process_of_a_pid_namespace() {
    sandbox_for(limit(), |s| survives_no_kill(s, MANY, &["jc-unshare", "-p"]));
}

#[test]
fn no_kill_leaves_a_process_of_an_init() {
    sandbox_for(limit(), |s| survives_no_kill(s, MANY, &["jc-unshare", "-p", "--init"]));
}

#[test]
fn no_kill_leaves_a_process_of_a_chain_with_all_namespaces() {
    sandbox_for(limit(), |s| survives_no_kill(s, SOME, &["jc-unshare", "--all", "-r"]));
}

/// The chain of an ordinary user who becomes root inside. The kernel clears PR_SET_PDEATHSIG on the way.
#[test]
fn no_kill_leaves_a_process_of_an_ordinary_users_namespace() {
    let user = ["setpriv", "--reuid", "1234", "--regid", "1234", "--clear-groups"];
    sandbox_for(limit(), |s| {
        let chain = [&user[..], &["jc-unshare", "-pU", "-r"]].concat();
        survives_no_kill(s, SOME, &chain);
    });
}

/// The maps are written from outside, and lack the caller.
#[test]
fn no_kill_leaves_a_process_of_a_namespace_mapped_from_outside() {
    let ranges = ["--map-users", "0:100000:1000", "--map-groups", "0:100000:1000"];
    sandbox_for(limit(), |s| {
        let chain = [&["jc-unshare", "-pU"][..], &ranges].concat();
        survives_no_kill(s, SOME, &chain);
    });
}

#[test]
fn no_kill_leaves_a_process_of_another_user_in_a_root() {
    sandbox_for(limit(), |s| {
        let root = busybox_root(s, "root");
        // busybox has no applet with this name.
        symlink("busybox", root.join("bin/setsid")).unwrap();
        let chain = ["jc-unshare", "-p", "--", "jc-rootfs", "-u", "33:34", root.to_str().unwrap()];
        survives_no_kill(s, MANY, &chain);
    });
}

/// The same chain in front of an init, which does not change its own user.
#[test]
fn no_kill_leaves_a_process_of_another_user_behind_an_init() {
    sandbox_for(limit(), |s| {
        let root = busybox_root(s, "root");
        symlink("busybox", root.join("bin/setsid")).unwrap();
        let link = ["jc-unshare", "-p", "--init", "--"];
        let chain = [&link[..], &["jc-rootfs", "-u", "33:34", root.to_str().unwrap()]].concat();
        survives_no_kill(s, SOME, &chain);
    });
}
