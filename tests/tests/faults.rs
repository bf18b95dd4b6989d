//! A signal at a system call of a chain, or a failed call: no program hangs or panics, the payload has all of its
//! isolation or does not start, and one jc-list removes all objects.
//!
//! `JC_TEST_FAULTS` is the number of faults of each command line, or `all`, `KILL` or `each`
//! ([`jc_tests::campaign::chosen`]). `JC_TEST_SEED` selects the faults. The file of `JC_FAULTS_LOG` gets a line of
//! results for each command line. `faults_images.rs` and `faults_oci.rs` have more command lines.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use jc_tests::accounts::Accounts;
use jc_tests::cgroups::can_limit;
use jc_tests::faults::{Act, Ended, Fault, run};
use jc_tests::image::Layout;
use jc_tests::line::{LONG, Line, REPORT, survives};
use jc_tests::roots::{busybox_image, busybox_root};
use jc_tests::sandbox_for;
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal;

fn jc_run<'a>(options: &[&'a str]) -> Vec<&'a str> {
    [&["jc-run"], options, &["--rootfs", "/srv/root", "--", "sh", "-c", REPORT]].concat()
}

fn report<'a>(words: Vec<&'a str>) -> Line<'a> {
    Line { before: ":", words, after: ":", reports: true }
}

#[test]
fn no_fault_breaks_a_container() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        survives(s, &report(jc_run(&["--network", "none"])));
    });
}

#[test]
fn no_fault_breaks_a_container_with_limits_and_ports() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        let limits: &[&str] = if can_limit("memory") { &["-m", "64M"] } else { &[] };
        let options = [&["--network", "bridge", "-p", "8080:80"], limits].concat();
        survives(s, &report(jc_run(&options)));
    });
}

#[test]
fn no_fault_breaks_a_container_with_volumes_and_a_user_namespace() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        s.sh("mkdir data").run().code(0);
        let maps = ["--uidmap", "0:0:65536", "--gidmap", "0:0:65536"];
        let options =
            [&["--network", "none", "-v", "/srv/data:/data", "--tmpfs", "/tmp"][..], &maps]
                .concat();
        survives(s, &report(jc_run(&options)));
    });
}

#[test]
fn no_fault_breaks_a_container_that_is_kept() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        let words = jc_run(&["--network", "none", "--keep", "--name", "c"]);
        survives(s, &Line { before: ":", words, after: REMOVED, reports: true });
    });
}

#[test]
fn no_fault_breaks_a_container_with_a_terminal() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        // Errors of links do not go to the terminal, so that the terminal shows only the report.
        let line = "exec script -qec 'exec jc-run -t --network none --rootfs /srv/root -- \
            sh -c \"$REPORT\" 2>&3' /dev/null 3>&2";
        let variable = format!("REPORT={REPORT}");
        let words = vec!["env", &variable, "sh", "-c", line];
        survives(s, &report(words));
    });
}

#[test]
fn no_fault_breaks_a_container_of_an_ordinary_user() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        s.sh("mkdir home; chown -R 4321:4321 home root").run().code(0);
        let user = ["setpriv", "--reuid=4321", "--regid=4321", "--clear-groups", "--"];
        let words = ["env", "-u", "JC_STORE", "HOME=/srv/home"];
        let words = [&user[..], &words, &jc_run(&["--network", "none"])].concat();
        let list = "setpriv --reuid=4321 --regid=4321 --clear-groups -- \
            env -u JC_STORE HOME=/srv/home jc-list -aq";
        survives(s, &Line { before: ":", words, after: list, reports: true });
    });
}

#[test]
fn no_fault_breaks_a_detached_container() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        let detached = ["jc-run", "-d", "--rm", "--network", "none", "--rootfs", "/srv/root"];
        let limits: &[&str] = if can_limit("pids") { &["--pids-limit", "50"] } else { &[] };
        for limits in [&[], limits] {
            let words = [&detached[..], limits, &["--", "true"]].concat();
            survives(s, &Line { before: ":", words, after: ":", reports: false });
        }
    });
}

const RUNNING: &str =
    "jc-run -d --name c --network none --rootfs /srv/root -- sleep 1000 >/dev/null";
const REMOVED: &str = "jc-list -aq | xargs -r jc-rm -f";

#[test]
fn no_fault_breaks_jc_exec() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        let words = vec!["jc-exec", "c", "sh", "-c", REPORT];
        survives(s, &Line { before: RUNNING, words, after: REMOVED, reports: true });
    });
}

#[test]
fn no_fault_breaks_jc_stop() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        let words = vec!["jc-stop", "-t", "1", "c"];
        survives(s, &Line { before: RUNNING, words, after: REMOVED, reports: false });
    });
}

#[test]
fn no_fault_breaks_jc_rm() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        let words = vec!["jc-rm", "-f", "c"];
        survives(s, &Line { before: RUNNING, words, after: REMOVED, reports: false });
    });
}

/// A list that removes the remains of a killed container.
#[test]
fn no_fault_breaks_jc_list() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        let limits = if can_limit("memory") { "-m 64M" } else { "" };
        let before = format!(
            "jc-run {limits} -p 8080:80 --network bridge --rootfs /srv/root -- sh -c \
             'echo ready; exec sleep 1000' > ready & while ! grep -q ready ready; do sleep 0.01; done
             kill -9 $!; rm ready"
        );
        let words = vec!["jc-list", "-aq"];
        survives(s, &Line { before: &before, words, after: ":", reports: false });
    });
}

#[test]
fn no_fault_breaks_the_sweep_of_networks() {
    sandbox_for(LONG, |s| {
        let before = "jc-net -p 8080:80 -- true";
        let words = vec!["jc-net", "--gc"];
        survives(s, &Line { before, words, after: ":", reports: false });
    });
}

#[test]
fn no_fault_breaks_a_container_of_layers() {
    sandbox_for(LONG, |s| {
        Layout::new(s.path("layout")).image("x", &busybox_image());
        s.sh("jc-pull -q oci:layout:x > record").run().code(0);
        let line = "jc-run --network none -- sh -c \"$0\" < /srv/record";
        let words = vec!["sh", "-c", line, REPORT];
        survives(s, &report(words));
    });
}

/// The changes are in the store.
#[test]
fn no_fault_breaks_a_kept_container_of_layers() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        std::fs::write(s.path("record"), r#"{"jc": 1, "layers": ["/srv/root"]}"#).unwrap();
        let options = ["--network", "none", "--keep", "--name", "c", "--record", "/srv/record"];
        let words = [&["jc-run"], &options[..], &["--", "sh", "-c", REPORT]].concat();
        survives(s, &Line { before: ":", words, after: REMOVED, reports: true });
    });
}

#[test]
fn no_fault_breaks_a_container_with_an_init_and_subordinate_ids() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        s.sh("chown -R 100000:100000 root").run().code(0);
        let accounts = Accounts::of_root(s);
        survives(s, &report(jc_run(&["--network", "none", "--init", "--userns", "auto"])));
        drop(accounts);
    });
}

#[test]
fn no_fault_breaks_a_container_that_joins_another() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        let words = jc_run(&["--network", "none", "--pid", "container:c", "--ipc", "container:c"]);
        survives(s, &Line { before: RUNNING, words, after: REMOVED, reports: true });
    });
}

#[test]
fn no_fault_breaks_a_container_with_few_rights() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        let options = [
            &["--network", "none", "--read-only", "--cap-drop", "ALL", "--cap-add", "CHOWN"][..],
            &["-u", "1000:1000", "--group-add", "7", "--ulimit", "nofile=100:200"],
            &["--tmpfs", "/tmp:size=1M", "--device", "/dev/null:/dev/nothing"],
        ]
        .concat();
        survives(s, &report(jc_run(&options)));
    });
}

#[test]
fn no_fault_breaks_a_container_with_volumes_of_its_image() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        let record =
            r#"{"jc": 1, "rootfs": "/srv/root", "config": {"Volumes": {"/data": {}, "/etc": {}}}}"#;
        std::fs::write(s.path("record"), record).unwrap();
        let options = ["--network", "none", "--record", "/srv/record", "--", "sh", "-c", REPORT];
        survives(s, &report([&["jc-run"], &options[..]].concat()));
    });
}

#[test]
fn no_fault_breaks_a_report_of_usage() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        let mut options = vec!["--network", "none", "--report", "/srv/usage.json"];
        if can_limit("memory") {
            options.extend(["-m", "64M", "--pids-limit", "50"]);
        }
        survives(s, &Line { after: "rm -f usage.json", ..report(jc_run(&options)) });
    });
}

/// A fault of the recorder ends the program, or the report has the gap.
#[test]
fn no_fault_breaks_a_recorded_program() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        let bare = ["jc-trace", "--report", "/srv/t", "--", "sh", "-c", REPORT];
        let run = jc_run(&["--network", "none", "--trace", "/srv/t"]);
        for words in [bare.to_vec(), run] {
            survives(s, &Line { after: "rm -f t", ..report(words) });
        }
    });
}

#[test]
fn no_fault_breaks_a_chain_that_is_written_by_hand() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        let limit: &[&str] = if can_limit("memory") { &["-m", "64M"] } else { &[] };
        let words = [
            &["jc-cgroup", "--report", "/srv/usage.json"][..],
            limit,
            &["--", "jc-net", "-p", "8081:81", "--", "jc-unshare", "-puiC", "--"],
            &["jc-rootfs", "/srv/root", "--", "sh", "-c", REPORT],
        ];
        survives(s, &Line { after: "rm -f usage.json", ..report(words.concat()) });
    });
}

#[test]
fn no_fault_breaks_a_kept_container_with_a_terminal() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        let line = "exec script -qec 'exec jc-run -t --keep --name c --network none \
            --rootfs /srv/root -- sh -c \"$REPORT\"' /dev/null";
        let variable = format!("REPORT={REPORT}");
        let words = vec!["env", &variable, "sh", "-c", line];
        survives(s, &Line { before: ":", words, after: REMOVED, reports: true });
    });
}

#[test]
fn no_fault_breaks_jc_exec_with_a_terminal() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        let line = "exec script -qec 'exec jc-exec -t c sh -c \"$REPORT\"' /dev/null";
        let variable = format!("REPORT={REPORT}");
        let words = vec!["env", &variable, "sh", "-c", line];
        survives(s, &Line { before: RUNNING, words, after: REMOVED, reports: true });
    });
}

#[test]
fn no_fault_breaks_a_detached_container_with_a_terminal() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        let options = ["jc-run", "-dit", "--rm", "--name", "c", "--network", "none"];
        let words = [&options[..], &["--rootfs", "/srv/root", "--", "true"]].concat();
        survives(s, &Line { before: ":", words, after: ":", reports: false });
    });
}

/// A log whose container ends while jc-logs follows it.
#[test]
fn no_fault_breaks_jc_logs() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        let before = "jc-run -d --keep --name c --network none --rootfs /srv/root -- \
            sh -c 'echo one; sleep 0.05; echo two' >/dev/null";
        let words = vec!["jc-logs", "-f", "c"];
        survives(s, &Line { before, words, after: REMOVED, reports: false });
    });
}

#[test]
fn no_fault_breaks_the_stop_of_a_container_with_a_network() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        let limits = if can_limit("memory") { "-m 64M" } else { "" };
        let before = format!(
            "jc-run -d --rm {limits} --name c -p 8080:80 --network bridge --rootfs /srv/root -- \
             sleep 1000 >/dev/null"
        );
        let words = vec!["jc-rm", "-f", "c"];
        // The container may end between the list and the removal.
        let after = format!("{REMOVED}; test -z \"$(jc-list -aq)\"");
        survives(s, &Line { before: &before, words, after: &after, reports: false });
    });
}

#[test]
fn no_fault_breaks_a_container_with_an_allow_list() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        survives(s, &report(jc_run(&["--allow", "a.example:443", "--egress-log", "/dev/null"])));
    });
}

#[test]
fn no_fault_breaks_jc_egress() {
    sandbox_for(LONG, |s| {
        let words = vec!["jc-egress", "--allow", "a.example:443", "--", "sh", "-c", REPORT];
        survives(s, &report(words));
    });
}

/// The indices of system calls with one of these numbers, after the start of `main` in the first process.
fn places(ended: &Ended, numbers: &[i64]) -> Vec<usize> {
    let calls = ended.calls[0].iter().enumerate();
    let named = calls.filter(|(_, call)| call.has_begun && numbers.contains(&(call.number as i64)));
    named.map(|(place, _)| place).collect()
}

#[test]
fn a_supervisor_that_cannot_wait_kills_its_chain_before_it_removes_the_state() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        let line = ["jc-run", "--network", "none", "--rootfs", "/srv/root", "--", "sleep", "0.2"];
        let call = places(&run(s, &line, None), &[libc::SYS_poll, libc::SYS_ppoll])[0];
        let act = Act::Fail(Errno::ENOMEM);
        let ended = run(s, &line, Some(Fault { process: 0, call, act }));
        assert_eq!((ended.code, ended.has_fired), (125, true), "{}", ended.stderr);
        let reaped = places(&ended, &[libc::SYS_wait4]);
        let removed = places(&ended, &[libc::SYS_unlink, libc::SYS_unlinkat]);
        assert!(reaped.iter().any(|reaped| call < *reaped && *reaped < removed[0]), "{reaped:?}");
    });
}

#[test]
fn a_recorder_without_memory_fails_with_its_own_exit_code() {
    sandbox_for(LONG, |s| {
        let line = ["jc-trace", "--report", "/srv/t", "--", "true"];
        for call in places(&run(s, &line, None), &[libc::SYS_brk, libc::SYS_mmap]) {
            let act = Act::Fail(Errno::ENOMEM);
            let ended = run(s, &line, Some(Fault { process: 0, call, act }));
            assert!([0, 125].contains(&ended.code), "{call}: {} {}", ended.code, ended.stderr);
        }
    });
}

#[test]
fn a_removal_that_is_killed_leaves_a_container_with_its_name_or_nothing() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        let start =
            "jc-run --keep --name c --network none --rootfs /srv/root -- true; mkdir -p /run/jc";
        s.sh(start).run().code(0);
        let removals = places(&run(s, &["jc-rm", "c"], None), &[libc::SYS_unlinkat]);
        assert!(removals.len() > 2);
        for call in removals {
            s.sh(start).run().code(0);
            let act = Act::Send(Signal::SIGKILL);
            let ended = run(s, &["jc-rm", "c"], Some(Fault { process: 0, call, act }));
            assert!(ended.has_fired);
            s.sh("test -z $(jc-list -aq) || jc-rm c").run().code(0);
            assert_eq!(s.sh("ls -A /run/jc").run().out(), "", "{call}");
        }
        s.sh("rmdir /run/jc").run();
    });
}

#[test]
fn no_fault_breaks_a_directory_with_changes_elsewhere() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        s.sh("mkdir root/mnt && mount -t tmpfs tmpfs root/mnt").run().code(0);
        let words = [
            &["jc-net", "--", "jc-unshare", "-puiC", "--", "jc-rootfs"][..],
            &["--upper", "/srv/u", "/srv/root", "--", "sh", "-c", REPORT],
        ];
        let before = "rm -rf /srv/u && mkdir /srv/u";
        survives(s, &Line { before, words: words.concat(), after: ":", reports: true });
        s.sh("umount root/mnt").run().code(0);
    });
}
