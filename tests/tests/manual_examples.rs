//! The examples of the manual pages run unchanged, except that an OCI layout replaces the images.

#![cfg(target_os = "linux")]

use std::fs;

use jc_tests::accounts::Accounts;
use jc_tests::cgroups::can_limit;
use jc_tests::image::{Image, Layout};
use jc_tests::layer::Entry;
use jc_tests::roots::{busybox_layer, busybox_root};
use jc_tests::{Ran, Sandbox, sandbox, skip, workspace_dir};

/// The lines of the section EXAMPLES: displays of one line (`.Dl`) and of several (`.Bd -literal`).
fn examples(page: &str) -> String {
    let text = fs::read_to_string(workspace_dir().join("man").join(page)).unwrap();
    let (_, section) = text.split_once(".Sh EXAMPLES\n").unwrap_or_else(|| panic!("{page}"));
    let section = section.split("\n.Sh ").next().unwrap();
    let mut script = String::new();
    let mut is_literal = false;
    for line in section.lines() {
        match line.strip_prefix(".Dl ") {
            _ if line.starts_with(".Bd -literal") => is_literal = true,
            _ if line == ".Ed" => is_literal = false,
            Some(command) => script += &(plain(command) + "\n"),
            None if is_literal => script += &(plain(line) + "\n"),
            None => {}
        }
    }
    assert!(!script.is_empty(), "{page} has no examples");
    script
}

/// The text of a line of mdoc(7), with the images of the test.
fn plain(line: &str) -> String {
    let text = line.replace("\\(dq", "\"").replace("\\e", "\\").replace("\\&", "");
    let words = text.split(' ').map(|word| match word {
        "alpine" | "debian:12" => "oci:/srv/image",
        other => other,
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Runs the examples of a page as root in an empty directory, after a script that prepares them.
fn run(s: &Sandbox, page: &str, before: &str) -> Ran {
    let layer = busybox_layer().entry(Entry::symlink("bin/tar", "busybox"));
    Layout::new(s.path("image")).image("x", &Image::new().layer(layer));
    fs::create_dir_all(s.path("work/src")).unwrap();
    let script = format!("cd work; set -e; {before}\n{}", examples(page));
    s.sh(&script).run()
}

/// Starts a detached container with the name of the examples.
fn web(payload: &str) -> String {
    format!("jc-run -d --name web --network none --image oci:/srv/image -- {payload} >/dev/null")
}

/// Fails if the examples fail or do not print this.
fn shows(ran: Ran, expected: &[&str]) {
    let ran = ran.code(0);
    let out = ran.out();
    for text in expected {
        assert!(out.contains(text), "{text}\n{ran}");
    }
}

#[test]
fn the_examples_of_jc_run_work() {
    sandbox(|s| {
        if !can_limit("memory") || !can_limit("pids") {
            skip!("this host has no memory or no pids controller");
        }
        let expected = ["hello from ", "2\n", "limited\n", "sleep 1000", "jc-rootfs"];
        shows(run(s, "jc-run.1", ""), &expected);
        assert_eq!(fs::read_to_string(s.path("work/result")).unwrap(), "ok\n");
        s.wait_for_no_process();
    });
}

#[test]
fn the_examples_of_jc_pull_and_the_store_work() {
    sandbox(|s| {
        shows(run(s, "jc-pull.1", ""), &["root:x:0:0", "uid=0", "etc\n"]);
        assert!(fs::read_to_string(s.path("work/names")).unwrap().contains("bin/busybox"));
        shows(run(s, "jc-images.1", ""), &["/srv/image"]);
        shows(run(s, "jc-rmi.1", ""), &["/srv/image"]);
    });
}

#[test]
fn the_examples_of_jc_push_and_jc_commit_work() {
    sandbox(|s| {
        shows(run(s, "jc-push.1", ""), &["sha256:"]);
        s.sh("cd work && ls alpine.tar layout/index.json").run().code(0);
        let before = "cp /bin/true server; mkdir files; touch files/x";
        shows(run(s, "jc-commit.1", before), &["\"layers\":["]);
    });
}

#[test]
fn the_examples_of_jc_rootfs_work() {
    sandbox(|s| {
        for root in ["debian", "base", "tools"] {
            busybox_root(s, root);
        }
        let pid = "PID=$(jq .pid /run/jc/web/state.json)";
        let before = format!("{}; {pid}", web("sleep 1000"));
        shows(run(s, "jc-rootfs.1", &before), &["ps\n", "src\n", "sleep 1000", "uid=33(web)"]);
        s.sh("jc-rm -f web").run().code(0);
        s.wait_for_no_process();
    });
}

#[test]
fn the_examples_of_jc_unshare_work() {
    sandbox(|s| {
        let accounts = Accounts::of_root(s);
        shows(run(s, "jc-unshare.1", ""), &["box\n1\n", "done\n", "uid=0(root)", "lo"]);
        drop(accounts);
        s.wait_for_no_process();
    });
}

#[test]
fn the_examples_of_jc_cgroup_work() {
    sandbox(|s| {
        if !can_limit("memory") || !can_limit("pids") {
            skip!("this host has no memory or no pids controller");
        }
        let ran = run(s, "jc-cgroup.1", "").code(0);
        let peak: u64 = ran.out().trim().parse().unwrap();
        assert!(peak > 0, "{ran}");
        s.wait_for_no_process();
    });
}

#[test]
fn the_examples_of_jc_net_work() {
    sandbox(|s| {
        busybox_root(s, "debian");
        let nc = r#"nc() { busybox nc "$@"; }"#;
        shows(run(s, "jc-net.1", nc), &["lo", "hello\n", "10.89.0."]);
        s.wait_for_no_process();
    });
}

#[test]
fn the_examples_of_programs_for_containers_work() {
    sandbox(|s| {
        shows(run(s, "jc-exec.1", &web("sleep 1000")), &["sleep 1000"]);
        shows(s.sh("jc-exec web ls /tmp; jc-rm -f web").run(), &["src\n"]);
        shows(run(s, "jc-list.1", &web("sleep 1000")), &[]);
        shows(s.sh("jc-list -a --json | jq -r .status; jc-rm web").run(), &["stopped\n"]);
        shows(run(s, "jc-logs.1", &web("sh -c 'echo up; sleep 0.1'")), &["up\n"]);
        shows(run(s, "jc-state.5", ""), &[]);
        shows(run(s, "jc-rm.1", ""), &[]);
        shows(run(s, "jc-stop.1", &web("sleep 1000")), &[]);
        shows(s.sh("jc-list -aq | wc -l").run(), &["0\n"]);
        s.wait_for_no_process();
    });
}
