//! The command lines of README, as far as this machine can run them.

#![cfg(target_os = "linux")]

use std::fs;

use jc_tests::image::{Image, Layout};
use jc_tests::roots::{busybox_layer, busybox_root};
use jc_tests::{Sandbox, sandbox, workspace_dir};

/// The block of code after the first line that contains this text, without its indentation.
fn block(after: &str) -> String {
    let text = fs::read_to_string(workspace_dir().join("README.md")).unwrap();
    let text = &text[text.find(after).unwrap_or_else(|| panic!("no {after:?}"))..];
    let lines = text.lines().skip_while(|line| !line.starts_with("    "));
    let lines = lines.take_while(|line| line.starts_with("    ") || line.is_empty());
    lines.map(|line| line.strip_prefix("    ").unwrap_or("").to_owned() + "\n").collect()
}

/// A source tree with a test, and the image that the lines name.
fn sources(s: &Sandbox) {
    Layout::new(s.path("image")).image("x", &Image::new().layer(busybox_layer()));
    fs::create_dir_all(s.path("tree/ci")).unwrap();
    let test = "pwd; id -u; ip -o link | wc -l; echo tested > result; exit 3\n";
    fs::write(s.path("tree/ci/test.sh"), test).unwrap();
    s.sh("chown -R 1000:1000 tree").run().code(0);
}

fn result(s: &Sandbox) -> String {
    let path = s.path("tree/result");
    let result = fs::read_to_string(&path).unwrap();
    fs::remove_file(path).unwrap();
    result
}

#[test]
fn the_step_for_github_actions_works() {
    sandbox(|s| {
        sources(s);
        let block = block("**GitHub Actions**");
        let (_, script) = block.split_once("run: |\n").unwrap();
        // The test runs as root without a registry. The owner of the tree is the calling user.
        let script = script.replace("sudo ", "").replace("debian:12", "oci:/srv/image");
        let script = script.replace("$(id -u):$(id -g)", "1000:1000");
        let step = s.sh(&format!("cd tree; set -e; {script}")).run();
        step.code(3).stdout("/src\n1000\n1\n");
        assert_eq!(result(s), "tested\n");
    });
}

#[test]
fn the_job_for_gitlab_works() {
    sandbox(|s| {
        sources(s);
        let block = block("**GitLab**");
        let lines: Vec<&str> =
            block.lines().filter_map(|line| line.strip_prefix("    - ")).collect();
        assert_eq!(lines.len(), 3, "{block}");
        let script = lines[..2].join("\n").replace("debian:12", "oci:/srv/image");
        let job = s.sh(&format!("cd tree; set -e; {script}")).env("CI_PROJECT_DIR", "/srv/tree");
        job.run().code(3).stdout("/src\n0\n2\n").stderr("");
        assert_eq!(result(s), "tested\n");
        s.sh("jc-run -d --rm --image oci:/srv/image -- sleep 1000").run().code(0);
        s.sh(lines[2]).run().code(0);
        s.wait_for_no_process();
    });
}

#[test]
fn images_go_out_by_a_pipe() {
    sandbox(|s| {
        sources(s);
        s.sh("mkdir site && echo hello >site/index.html").run().code(0);
        let lines = block("## Images out").replace("debian:12 |", "oci:/srv/image |");
        let lines = lines.replace("registry.example/team/site:1", "oci:layout:1");
        s.sh(&format!("set -e; {lines}")).run().code(0).stdout("hello\n");
        s.sh("ls debian.tar layout/index.json").run().code(0);
    });
}

#[test]
fn the_makefile_works() {
    sandbox(|s| {
        sources(s);
        fs::write(s.path("tree/Makefile"), block("**A Makefile**")).unwrap();
        let make = "cd tree; env -u MAKEFLAGS -u MAKELEVEL make -s test IMAGE=oci:/srv/image";
        let ran = s.sh(make).run();
        ran.code(2).stdout("/src\n0\n1\n");
        assert_eq!(result(s), "tested\n");
    });
}

#[test]
fn the_walk_and_the_life_of_a_container_work() {
    sandbox(|s| {
        let text = fs::read_to_string(workspace_dir().join("README.md")).unwrap();
        let start = text.find("## A walk through the chain").unwrap();
        let end = text.find("## In CI").unwrap();
        let lines = text[start..end].lines().filter_map(|line| line.strip_prefix("    "));
        // Lines that need a keyboard are tested elsewhere.
        let script: String =
            lines.filter(|line| !line.contains("-it")).map(|l| format!("{l}\n")).collect();
        let ran = s.sh(&script).run();
        let out = ran.out();
        for shown in ["I am process 1\n", "137\n", "box\n", "up\n", "eth0", "/bin/busybox"] {
            assert!(out.contains(shown) || shown == "/bin/busybox", "{shown}\n{ran}");
        }
        ran.code(0);
        s.wait_for_no_process();
    });
}

/// The other machines of GNU parallel are this one: `:` is its name for that.
#[test]
fn the_line_for_parallel_works() {
    sandbox(|s| {
        busybox_root(s, "root");
        let block = block("**No engine**");
        let line = block.lines().find(|line| line.starts_with("parallel ")).unwrap();
        let line = line.replace("n1,n2", ":").replace("jc-run ", "jc-run --network none ");
        s.sh(&format!("{line} | sort")).env("HOME", "/srv").run().code(0).stdout("1\n2\n3\n4\n");
    });
}

#[test]
fn the_lines_about_changes_work() {
    sandbox(|s| {
        let block = block("## Changes as data");
        // The directory of the test's own gets the changes, in place of the host's root.
        let script = block.replace("--apply / /tmp/u", "--apply / /tmp/u tmp");
        let script = script.replace("rm -r /tmp/u /tmp/made /tmp/dir\n", "");
        let ran = s.sh(&format!("set -e\n{script}")).run().code(0).stderr("");
        ran.stdout("A tmp/dir\nA tmp/made\n");
        assert_eq!(fs::read("/tmp/made").unwrap(), b"x\n");
        s.sh("rm -r /tmp/made /tmp/dir /tmp/u").run().code(0);
    });
}
