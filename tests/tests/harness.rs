//! Tests of the harness itself: a check that never fails would make all other tests worthless.

#![cfg(target_os = "linux")]

use std::env;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use jc_tests::{Cmd, sandbox, sandbox_for, wait_until};
use rustix::process::Signal;

/// The message of a panic.
fn panic_of(f: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(f)).expect_err("it did not panic");
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap()
}

#[test]
fn a_command_gives_its_outputs_and_code() {
    let script = "cat; echo err >&2; exit 3";
    Cmd::new("sh").args(["-c", script]).input("in").run().code(3).stdout("in").stderr("err\n");
    Cmd::new("sh").args(["-c", "kill -9 $$"]).run().killed_by(Signal::KILL);
}

#[test]
fn a_check_fails_with_all_that_was_written() {
    let ran = Cmd::new("sh").args(["-c", "echo out; echo err >&2; exit 1"]).run();
    let text = panic_of(|| drop(ran.code(0)));
    assert!(text.contains("stdout: out\n") && text.contains("stderr: err\n"), "{text}");
    assert!(text.contains("exit status: 1"), "{text}");
    for wrong in ["sh: a\nsh: b", "bash: a", "sh: c"] {
        let ran = Cmd::new("printf").arg("%s\\n").arg(wrong).run();
        panic_of(|| drop(ran.fails_as("sh", "a")));
    }
}

#[test]
fn a_command_that_takes_too_long_is_killed_with_its_children() {
    let script = "echo $$; sleep 1000 & wait";
    let slow = Cmd::new("sh").args(["-c", script]).timeout(Duration::from_millis(200));
    let text = panic_of(|| drop(slow.run()));
    assert!(text.contains("took longer than 200ms"), "{text}");
    let group = text.split("stdout: ").nth(1).unwrap().trim();
    // A process ends some time after its SIGKILL.
    wait_until("the end of the processes", || {
        fs::read_dir("/proc").unwrap().all(|path| {
            let stat = fs::read_to_string(path.unwrap().path().join("stat")).unwrap_or_default();
            let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
            // A zombie counts as ended.
            fields.get(2) != Some(&group) || fields[0] == "Z"
        })
    });
}

#[test]
fn a_process_that_keeps_an_output_open_is_found() {
    let command = Cmd::new("sh").args(["-c", "sleep 4 & exit 0"]);
    let text = panic_of(|| drop(command.run()));
    assert!(text.contains("has its outputs open"), "{text}");
}

#[test]
fn a_sandbox_is_private() {
    let outside = fs::read_link("/proc/self/ns/net").unwrap();
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    sandbox(|s| {
        s.sh("echo $PPID; hostname; pwd; ls -A").run().code(0).stdout("1\njc-tests-host\n/srv\n");
        s.sh("ls -A /run /var/tmp").run().stdout("/run:\nmount\n\n/var/tmp:\n");
        s.sh("ip -o link | wc -l; ip -4 -o addr | wc -l").run().stdout("1\n1\n");
        s.sh("command -v jc-unshare").run().code(0);
        // The directories of the sandbox are writable, and are removed with it.
        fs::write(s.path("x"), "x").unwrap();
    });
    assert_eq!(fs::read_link("/proc/self/ns/net").unwrap(), outside);
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), hostname);
    assert!(!fs::exists("/srv/x").unwrap());
}

#[test]
#[should_panic(expected = " sleep 1000")]
fn a_process_left_behind_fails_the_test() {
    sandbox(|s| drop(s.sh("setsid sleep 1000 >/dev/null 2>&1 &").run().code(0)));
}

#[test]
#[should_panic(expected = "left behind:\n    mount / /mnt ")]
fn a_mount_left_behind_fails_the_test() {
    sandbox(|s| drop(s.sh("mount -t tmpfs left /mnt").run().code(0)));
}

#[test]
#[should_panic(expected = "left behind:\n    network link left0")]
fn a_network_link_left_behind_fails_the_test() {
    sandbox(|s| drop(s.sh("ip link add left0 type veth peer name left1").run().code(0)));
}

#[test]
#[should_panic(expected = "left behind:\n    file /run/left")]
fn a_file_left_behind_fails_the_test() {
    sandbox(|s| drop(s.sh("touch /run/left").run().code(0)));
}

#[test]
#[should_panic(expected = "left behind:\n    file /srv/store/tmp/left")]
fn a_half_made_thing_in_the_store_fails_the_test() {
    sandbox(|s| drop(s.sh("mkdir -p store/tmp/left").run().code(0)));
}

#[test]
#[should_panic(expected = "left behind:\n    the hostname other")]
fn a_changed_hostname_fails_the_test() {
    sandbox(|s| drop(s.sh("hostname other").run().code(0)));
}

#[test]
#[should_panic(expected = "signal: 9")]
fn a_test_that_takes_too_long_fails() {
    sandbox_for(Duration::from_millis(500), |s| drop(s.sh("sleep 1000").run()));
}

#[test]
#[should_panic(expected = "of its own")]
fn a_test_that_panics_fails_with_its_words() {
    sandbox(|_| panic!("words of its own"));
}

/// The test executes itself with a variable that makes it skip.
#[test]
fn a_skipped_test_is_counted_or_fails() {
    if env::var_os("JC_TESTS_TOLD_TO_SKIP").is_some() {
        return sandbox(|_| jc_tests::skip!("told {}", "to"));
    }
    let log = env::temp_dir().join(format!("jc-tests-skip-{}", std::process::id()));
    let run = |must| {
        Cmd::new(env::current_exe().unwrap())
            .args(["--exact", "a_skipped_test_is_counted_or_fails"])
            .env("JC_TESTS_TOLD_TO_SKIP", "1")
            .env("JC_SKIP_LOG", &log)
            .env("JC_MUST_RUN", must)
            .run()
    };
    let (may, must) = (run("0"), run("1"));
    let logged = fs::read_to_string(&log);
    fs::remove_file(&log).unwrap();
    may.code(0);
    assert_eq!(logged.unwrap(), "a_skipped_test_is_counted_or_fails: told to\n");
    assert!(must.out().contains("cannot run, and JC_MUST_RUN is set: told to"), "{must}");
    must.code(101);
}
