//! The log of a detached payload: its limit, and attacks of a payload on it.

#![cfg(target_os = "linux")]

use std::fs;

use jc_tests::roots::busybox_root;
use jc_tests::{Ran, Sandbox, sandbox, wait_for};
use serde_json::Value;

/// Starts a detached container with the name `n` that runs a script.
fn start(s: &Sandbox, options: &str, script: &str) {
    fs::write(s.path("root/script"), script).unwrap();
    let line = format!("jc-run -d --name n --network none {options} --rootfs root -- sh /script");
    s.sh(&line).run().code(0).stderr("");
}

/// Waits for the end of the container. Returns its exit status.
fn exit_code(s: &Sandbox) -> i64 {
    let code = wait_for("the exit code", || {
        let state = fs::read("/run/jc/n/state.json").unwrap();
        let state: Value = serde_json::from_slice(&state).unwrap();
        state["annotations"]["jc.exit-code"].as_str().map(|code| code.parse().unwrap())
    });
    s.wait_for_no_process();
    code
}

fn tool(s: &Sandbox, line: &str) -> Ran {
    s.sh(line).run()
}

/// The size of the files of an output, in bytes.
fn size(name: &str) -> u64 {
    let files = [format!("/run/jc/n/{name}"), format!("/run/jc/n/{name}.1")];
    files.iter().filter_map(|path| fs::metadata(path).ok()).map(|metadata| metadata.len()).sum()
}

#[test]
fn a_log_keeps_the_last_of_what_a_payload_writes() {
    sandbox(|s| {
        busybox_root(s, "root");
        for options in ["", "-t"] {
            start(s, &format!("--log-size 256k {options}"), "seq 200000; exit 3");
            assert_eq!(exit_code(s), 3);
            assert!((64 << 10..=128 << 10).contains(&size("stdout")), "{}", size("stdout"));
            let out = tool(s, "jc-logs n").code(0).stderr("").out();
            // The first line may be incomplete.
            let numbers: Vec<u32> = out
                .split_terminator('\n')
                .skip(1)
                .map(|line| line.trim().parse().unwrap())
                .collect();
            assert_eq!(numbers.last(), Some(&200_000));
            assert!(numbers.is_sorted() && numbers.len() as u32 == 200_001 - numbers[0]);
            let last = tool(s, "jc-logs -n 12000 n").code(0).out();
            assert_eq!(last.lines().next().map(str::trim), Some("188001"));
            tool(s, "jc-rm n").code(0);
        }
    });
}

#[test]
fn a_payload_cannot_change_its_log() {
    sandbox(|s| {
        busybox_root(s, "root");
        let script = "echo first; (: > /proc/self/fd/1); chmod 4777 /proc/self/fd/1; echo last";
        for user in ["0", "web"] {
            start(s, &format!("-u {user}"), &format!("{script}; echo error > /proc/self/fd/2"));
            assert_eq!(exit_code(s), 0);
            let ran = tool(s, "jc-logs n").code(0).stdout("first\nlast\n");
            assert!(ran.err().ends_with("error\n"), "{ran}");
            tool(s, "stat -c '%a %U' /run/jc/n/std*").stdout("600 root\n600 root\n");
            tool(s, "jc-rm n").code(0);
        }
    });
}

#[test]
fn a_log_that_cannot_be_written_delays_no_payload() {
    sandbox(|s| {
        busybox_root(s, "root");
        // A name that cannot be replaced is one cause of lost bytes, and a full disk is another.
        let script = "read -r x; seq 100000; echo more >&2; exit 7";
        start(s, "-i --log-size 64k", script);
        fs::create_dir("/run/jc/n/stdout.1").unwrap();
        fs::write("/run/jc/n/stdin", "go\n").unwrap();
        assert_eq!(exit_code(s), 7);
        let (lost, kept) = (588_895 - (16 << 10), 16 << 10);
        fs::remove_dir("/run/jc/n/stdout.1").unwrap();
        let ran = tool(s, "jc-logs n").code(0);
        assert_eq!(ran.out().len(), kept);
        let errors = ran.err();
        let lines: Vec<&str> = errors.lines().collect();
        let lacks = format!("the log lacks {lost} bytes");
        assert!(lines[0] == "more" && lines[1].contains(&lacks), "{errors}");
        tool(s, "jc-rm n").code(0);
        fs::write(s.path("root/script"), "seq 1000000; exit 7").unwrap();
        tool(s, "mkdir small; mount -t tmpfs -o size=1m none small").code(0);
        let line = "jc-run -d --state-dir small --network none --rootfs root -- sh /script";
        tool(s, line).code(0).stderr("");
        s.wait_for_no_process();
        tool(s, "umount small; rmdir small").code(0);
    });
}

#[test]
fn the_last_words_of_a_payload_are_in_the_log() {
    sandbox(|s| {
        busybox_root(s, "root");
        for options in ["", "--init", "--pid host", "--uidmap 0:0:65536 --gidmap 0:0:65536"] {
            // A process that still has the pipe open delays nobody.
            let script = "setsid sh -c 'while :; do echo noise >&2; done' & echo out; exit 4";
            start(s, options, script);
            assert_eq!(exit_code(s), 4, "{options}");
            tool(s, "jc-logs --stdout n").code(0).stdout("out\n");
            tool(s, "jc-rm n").code(0);
        }
    });
}

#[test]
fn a_log_is_followed_from_file_to_file() {
    sandbox(|s| {
        busybox_root(s, "root");
        let script = "i=0; while [ $i -lt 100 ]; do seq $((i*1000+1)) $((i*1000+1000))
            i=$((i+1)); sleep 0.02; done";
        start(s, "--log-size 800k", script);
        let ran = tool(s, "jc-logs -f n").code(0).stderr("");
        let numbers: String = (1..=100_000).map(|n| format!("{n}\n")).collect();
        assert!(ran.out() == numbers, "{} lines", ran.out().lines().count());
        assert!(size("stdout") < 400 << 10, "{}", size("stdout"));
        tool(s, "jc-rm n").code(0);
    });
}

#[test]
fn a_bound_of_a_log_needs_a_log() {
    sandbox(|s| {
        busybox_root(s, "root");
        for options in ["--log-size 1M", "-d --log-size 1k", "-d --log-size x"] {
            let line = format!("jc-run {options} --rootfs root -- echo ran");
            tool(s, &line).code(125).stdout("").fails_as("jc-run", "");
        }
    });
}
