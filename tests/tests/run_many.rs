//! Many containers, many states, and kills at random moments. jc-run among programs that users put around a program.

#![cfg(target_os = "linux")]

use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use jc_tests::cgroups::{ParentGroup, can_limit};
use jc_tests::roots::busybox_root;
use jc_tests::screen::Screen;
use jc_tests::state::ended_containers;
use jc_tests::volume::{Random, volume};
use jc_tests::{Sandbox, require, sandbox, sandbox_for};
use rustix::process::Signal;
use serde_json::json;

/// The private memory in KB of all processes with this name.
fn private(name: &str) -> u64 {
    let mut total = 0;
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let path = entry.path();
        if fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name) {
            let rollup = fs::read_to_string(path.join("smaps_rollup")).unwrap_or_default();
            let lines = rollup.lines().filter(|line| line.starts_with("Private_"));
            total += lines
                .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
                .sum::<u64>();
        }
    }
    total
}

#[test]
fn many_containers_at_once_are_listed_and_stopped() {
    sandbox_for(Duration::from_secs(3600), |s| {
        busybox_root(s, "root");
        let limits = if can_limit("memory") { "-m 64M" } else { "" };
        let count = 40 * volume();
        let start = format!(
            "seq {count} | xargs -P 8 -I@ \
             jc-run -d --rm {limits} --rootfs root -- sleep 1000 | sort > ids"
        );
        s.sh(&start).timeout(Duration::from_secs(200)).run().code(0).stderr("");
        let ids = fs::read_to_string(s.path("ids")).unwrap();
        assert_eq!(ids.lines().count(), count as usize);
        s.sh("jc-list -q | sort | cmp - ids").run().code(0);
        let table = s.sh("jc-list").run().code(0).out();
        assert_eq!(table.matches("  up ").count(), count as usize, "{}", &table[..400]);
        // The memory of all waiting links together.
        let used: u64 = ["jc-run", "jc-cgroup", "jc-net", "jc-unshare"].map(private).iter().sum();
        assert!(
            used / u64::from(count) < 1500,
            "{} KB private a container",
            used / u64::from(count)
        );
        s.sh("xargs jc-stop < ids").run().code(0).stderr("");
        s.sh("jc-list -aq").run().code(0).stdout("");
        s.wait_for_no_process();
    });
}

#[test]
fn many_containers_that_have_ended_are_listed_and_removed() {
    sandbox_for(Duration::from_secs(600), |s| {
        let count = 1000 * volume();
        ended_containers(s, count);
        s.sh("jc-list -a | wc -l").run().code(0).stdout(&format!("{}\n", count + 2));
        s.sh("jc-list -aq | xargs jc-rm").timeout(Duration::from_secs(300)).run().code(0);
        assert!(!fs::exists("/run/jc").unwrap());
    });
}

/// SIGKILL of a random process of the container, after a random time.
#[test]
fn one_list_leaves_nothing_after_any_kill() {
    sandbox_for(Duration::from_secs(3600), |s| {
        busybox_root(s, "root");
        let limits = if can_limit("memory") { "-m 64M" } else { "" };
        let place = ParentGroup::make("jc-tests-run-killed");
        let mut random = Random(1);
        for round in 0..24 * volume() as usize {
            let options = ["", "-d", "-d --rm", "--keep --name k"][round % 4];
            let network = ["-p 8080:80", "--network none"][round / 4 % 2];
            let parent = if round % 3 == 0 { "--cgroup-parent jc-tests-run-killed" } else { "" };
            let line = format!(
                "exec jc-run {options} {limits} {parent} {network} --rootfs root -- sleep 1000"
            );
            let running = s.sh(&line).spawn();
            sleep(random.time_below(Duration::from_millis(60)));
            let all = s.processes();
            let victim = &all[random.below(all.len() as u64) as usize];
            let pid = victim.split(' ').next().unwrap();
            s.sh(&format!("kill -9 {pid}")).run();
            sleep(random.time_below(Duration::from_millis(20)));
            // Containers that survived. A detached container may have just started.
            s.sh("jc-list -q | xargs -r jc-stop -t 0").run();
            if !options.contains("-d") {
                running.signal(Signal::KILL);
            }
            drop(running.wait());
            s.wait_for_no_process();
            let kept = s.sh("jc-list -a --json").run().code(0).out();
            for state in kept.lines() {
                let state: serde_json::Value = serde_json::from_str(state).unwrap();
                assert_eq!(
                    (&state["status"], &state["pid"]),
                    (&json!("stopped"), &json!(null)),
                    "{victim}"
                );
                assert!(options == "-d" || options.contains("--keep"), "{options}: {state}");
            }
            s.sh("jc-list -aq | xargs -r jc-rm").run().code(0);
            assert!(!fs::exists("/run/jc").unwrap(), "{options} {victim}");
            let links = fs::read_to_string("/proc/self/net/dev").unwrap();
            assert!(!links.contains("jc0a"), "{victim}\n{links}");
            assert_eq!(place.groups(), [] as [PathBuf; 0], "{victim}");
        }
        place.remove();
    });
}

#[test]
fn programs_around_jc_run_compose_with_it() {
    sandbox(|s| {
        busybox_root(s, "root");
        let nothing = |s: &Sandbox| {
            s.wait_for_no_process();
            s.sh("jc-list -aq").run().code(0).stdout("");
        };
        let run = "jc-run --network none --rootfs root --";
        s.sh(&format!("timeout 0.5 {run} sleep 1000")).run().code(124);
        nothing(s);
        s.sh(&format!("timeout -k 0.3 0.3 {run} sh -c 'trap : TERM; while :; do sleep 0.1; done'"))
            .run()
            .code(137);
        nothing(s);
        s.sh(&format!("nice -n 5 {run} sh -c 'cut -d\" \" -f19 /proc/self/stat'"))
            .run()
            .stdout("5\n");
        s.sh(&format!("seq 100000 | {run} cat | head -1")).run().code(0).stdout("1\n");
        // The kernel does not end a PID 1 by SIGPIPE, and write(2) returns EPIPE there.
        let run_init = run.replace("jc-run", "jc-run --init");
        s.sh(&format!("{run_init} yes | head -1")).run().code(0).stdout("y\n").stderr("");
        nothing(s);
        s.sh(&format!("{run} sh -c 'exit 6' & wait $!")).run().code(6);
        let many = format!("{run} sh -c 'echo @' & ").repeat(5).replace('@', "one");
        s.sh(&format!("{many} wait")).run().code(0).stdout(&"one\n".repeat(5));
        nothing(s);
        require(s, "parallel", "parallel");
        let parallel = format!("seq 12 | parallel --will-cite -j 4 --keep-order {run} echo {{}}");
        let numbers: String = (1..=12).map(|n| format!("{n}\n")).collect();
        s.sh(&parallel).env("HOME", "/srv").env("SHELL", "/bin/sh").run().code(0).stdout(&numbers);
        s.sh("rm -rf .parallel").run();
        nothing(s);
    });
}

#[test]
fn keys_end_and_stop_containers_of_an_interactive_shell() {
    sandbox(|s| {
        busybox_root(s, "root");
        let screen = Screen::new(s);
        let run = "jc-run --network none --rootfs root -- sleep 1000";
        screen.line(run);
        screen.runs("sleep");
        screen.key("C-c");
        screen.prompts("1000", "o$");
        screen.ask("echo code $?", "o$");
        assert!(screen.shown().contains("code 130"), "{}", screen.shown());
        screen.line("clear");
        screen.wait(|shown| shown == "o$");
        screen.line(run);
        screen.runs("sleep");
        screen.key("C-z");
        screen.wait(|shown| shown.contains("Stopped") && shown.lines().last() == Some("o$"));
        screen.line("fg");
        screen.runs("sleep");
        screen.key("C-c");
        screen.prompts("fg", "o$");
        // A job in the background of the shell, and a loop that a key ends.
        screen.line("clear; while :; do jc-run --network none --rootfs root -- sleep 1000; done");
        screen.runs("sleep");
        screen.key("C-c");
        screen.wait(|shown| shown.lines().last() == Some("o$"));
        s.sh("jc-list -aq").run().code(0).stdout("");
        screen.line("exit");
    });
}
