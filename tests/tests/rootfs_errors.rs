//! jc-rootfs with failed system calls: the container has all that the options ask for, or does not start.

#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use jc_tests::seccomp::without_if;
use jc_tests::volume::volume;
use jc_tests::{Ran, Sandbox, require, sandbox, sandbox_for};
use nix::libc::{self, EINVAL};

mod rootfs_support;
use rootfs_support::{in_layer, root};

/// A script that shows the isolation of a payload.
const PROBE: &str = "id; pwd; grep -E '^(Cap|NoNewPrivs|Seccomp)' /proc/self/status
    grep ' /[^ ]* ' /proc/self/mountinfo | cut -d' ' -f4- | sort
    for f in keys timer_list interrupts; do head -c 1 /proc/$f | wc -c; done
    ls -A /sys/firmware /sys/fs/cgroup; cat /bound/f; ls /proc/self/fd | wc -l
    trap | wc -l; ulimit -n; touch /x 2>&1 || :";

/// A chain with most options of jc-rootfs.
const OPTIONS: &str = "-v dir:/bound:ro --tmpfs /t --mask default --ro-path /etc --read-only -u web
    --cap-drop ALL --cap-add CHOWN,SETUID,SETGID --no-new-privs --seccomp default --ulimit nofile=64
    --layer root --layer dir";

/// Runs the chain under strace(1) with these options, in cgroup, PID and network namespaces of its own.
fn traced(s: &Sandbox, strace: &[&str]) -> Ran {
    let chain = ["jc-unshare", "-pnC", "--", "strace", "--quiet=all"];
    let command = s.cmd(chain[0]).args(&chain[1..]).args(strace).arg("jc-rootfs");
    command.args(OPTIONS.split_whitespace()).args(["--", "sh", "-c", PROBE]).run()
}

/// The output without the numbers of new mounts.
fn isolation(ran: &Ran) -> String {
    let words = |line: &str| {
        let words = line.split(' ').filter(|word| !word.contains("/proc/self/fd/"));
        words.collect::<Vec<_>>().join(" ")
    };
    ran.out().lines().map(words).collect::<Vec<_>>().join("\n")
}

/// The system calls of jc-rootfs between its own start and that of the payload, each with its count. Calls for memory
/// are left out, since a program without memory aborts.
fn calls(s: &Sandbox) -> Vec<(String, usize)> {
    const FOR_MEMORY: [&str; 4] = ["brk", "mmap", "mremap", "munmap"];
    traced(s, &["-o", "trace"]).code(0);
    let trace = fs::read_to_string(s.path("trace")).unwrap();
    let names = trace.lines().filter_map(|line| Some(line.split_once('(')?.0.to_owned()));
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let counted = names.map(|name| {
        let count = counts.entry(name.clone()).or_default();
        *count += 1;
        (name, *count)
    });
    // The calls from the first one of the program itself.
    let own = counted.skip_while(|(name, _)| name != "close_range");
    let own = own.take_while(|(name, count)| name != "execve" || *count == 1);
    own.filter(|(name, _)| !FOR_MEMORY.contains(&name.as_str())).collect()
}

/// The distance between two runs of [`every_failed_call_is_an_error_or_changes_nothing`]. The distance is 1 from a
/// volume of 7 on.
fn stride() -> usize {
    (7 / volume() as usize).max(1)
}

#[test]
fn a_capability_that_cannot_be_dropped_is_an_error() {
    const PR_CAPBSET_DROP: u64 = 24;
    sandbox(|s| {
        root(s, "root");
        let command = in_layer(s, &["--cap-drop", "ALL"], "grep CapBnd /proc/self/status");
        without_if(libc::SYS_prctl, (0, PR_CAPBSET_DROP), EINVAL, || command.spawn())
            .wait()
            .code(125)
            .stdout("")
            .fails_as("jc-rootfs", "PR_CAPBSET_DROP CHOWN: Invalid argument");
    });
}

/// Only a user namespace may lack the right to a new procfs or sysfs.
#[test]
fn the_kernels_file_systems_are_never_replaced_by_those_of_the_host() {
    sandbox(|s| {
        require(s, "strace", "the package strace");
        root(s, "root");
        s.sh("mkdir dir && echo bound >dir/f && mount -t tmpfs host /sys/kernel").run().code(0);
        let whole = isolation(&traced(s, &["-o", "/dev/null"]).code(0));
        for call in ["fsopen", "fsconfig"] {
            for number in 1..=9 {
                let inject = format!("inject={call}:error=EPERM:when={number}");
                let ran = traced(s, &["-o", "/dev/null", "-e", &inject]);
                let has_failed = ran.status().code() == Some(125);
                assert!(has_failed || isolation(&ran) == whole, "{inject}\n{ran}");
            }
        }
        s.sh("umount /sys/kernel").run().code(0);
    });
}

#[test]
fn masks_need_no_proc_and_sys_in_a_root_that_has_none() {
    sandbox(|s| {
        root(s, "root");
        let none = ["--proc", "none", "--sys", "none", "--mask", "default"];
        in_layer(s, &none, "ls -d /proc /sys 2>/dev/null; echo ran").run().code(0).stdout("ran\n");
    });
}

#[test]
fn every_failed_call_is_an_error_or_changes_nothing() {
    sandbox_for(Duration::from_secs(1200), |s| {
        require(s, "strace", "the package strace");
        root(s, "root");
        s.sh("mkdir dir && echo bound >dir/f").run().code(0);
        let whole = isolation(&traced(s, &["-o", "/dev/null"]).code(0));
        let mut runs = Vec::new();
        for (call, n) in calls(s) {
            for errno in ["ENOMEM", "EMFILE", "EIO", "EINTR"] {
                runs.push(format!("{call}:error={errno}:when={n}"));
            }
        }
        assert!(runs.len() > 400, "{}", runs.len());
        // The stride is coprime to the number of errors, so that each call gets each error in some run.
        let runs = Mutex::new(runs.into_iter().step_by(stride()));
        let next = || runs.lock().unwrap().next();
        let work = || {
            while let Some(inject) = next() {
                let inject = format!("inject={inject}");
                let ran = traced(s, &["-o", "/dev/null", "-e", &inject]);
                match ran.status().code() {
                    Some(0) => assert_eq!(isolation(&ran), whole, "{inject}"),
                    Some(125..=127) => assert_eq!(ran.out(), "", "{inject}"),
                    _ => panic!("{inject}\n{ran}"),
                }
            }
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
            workers.into_iter().for_each(|worker| worker.join().unwrap());
        });
    });
}
