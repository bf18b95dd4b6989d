//! Overlays of directories of the host: `jc-rootfs --upper DIR /`, and `-v SRC:DST:upper=DIR`.

#![cfg(target_os = "linux")]

use std::fs;

use jc_tests::roots::busybox_root;
use jc_tests::{Ann, Sandbox, sandbox, tree};
use serde_json::{Value, json};

/// Makes a directory with a file, a mount of its own, and a file that is a mount.
fn work_tree(s: &Sandbox, name: &str, owner: u32) {
    let script = "mkdir -p $1/sub $1/t/dir && echo old >$1/t/f && echo old >$1/t/gone && echo old >$1/bound &&
        mount -t tmpfs -o nosuid tmpfs $1/sub && echo old >$1/sub/f && echo host >bound && mount --bind bound $1/bound &&
        chown -R $2:$2 $1";
    s.sh(script).args(["sh", name, &owner.to_string()]).run().code(0);
}

/// Changes to the work tree in the current directory.
const CHANGE: &str =
    "echo new >t/f; rm t/gone; echo new >sub/f; echo new >sub/made; mkdir t/dir/new";

const LIST: &str = "M sub/f\nA sub/made\nA t/dir/new\nM t/f\nD t/gone\n";

/// The list with a prefix for each path, sorted by path.
fn list(prefix: &str) -> String {
    let mut lines: Vec<String> =
        LIST.lines().map(|line| line.replacen(' ', &format!(" {prefix}"), 1)).collect();
    lines.sort_by(|a, b| a[2..].cmp(&b[2..]));
    lines.join("\n") + "\n"
}

#[test]
fn every_mount_of_the_host_is_protected() {
    sandbox(|s| {
        work_tree(s, "w", 0);
        let before = tree::manifest(&s.path("w"));
        let script = format!(
            "cd /srv/w && {CHANGE}; ls -A /srv/u; echo x >bound || echo refused; echo x >/tmp/made"
        );
        let ran =
            s.jc("jc-rootfs").args(["--upper", "u", "/", "--", "sh", "-c", &script]).run().code(0);
        // The place of the changes is empty for the payload, and a file that is a mount is read-only.
        assert_eq!(ran.out(), "refused\n", "{ran}");
        assert_eq!(tree::changes(&before, &tree::manifest(&s.path("w"))), "");
        assert!(!fs::exists("/tmp/made").unwrap());
        s.sh("jc-changes ./u | sed s/tmp.made/m/")
            .run()
            .code(0)
            .stdout(&format!("{}A m\n", list("srv/w/")));
        let lower: Value = serde_json::from_slice(&fs::read(s.path("u/lower")).unwrap()).unwrap();
        let overlays = lower["overlays"].as_array().unwrap();
        let of = |at: &str| overlays.iter().find(|overlay| overlay["at"] == at).unwrap();
        assert_eq!((&lower["jc"], &lower["uid"]), (&json!(1), &json!(0)));
        assert_eq!(
            *of("/"),
            json!({"at": "/", "upper": "upper", "layers": ["/"], "userxattr": false})
        );
        assert_eq!(of("/srv/w/sub")["upper"], "mounts/srv%2Fw%2Fsub/upper");
        assert!(lower["read_only"].as_array().unwrap().contains(&json!("/srv/w/bound")));
        // A second run sees the changes of the first.
        let again = ["--upper", "u", "/", "--", "cat", "/srv/w/t/f", "/srv/w/sub/f"];
        s.jc("jc-rootfs").args(again).run().code(0).stdout("new\nnew\n");
        // The payload of the caller's root starts in the caller's directory, if the directory is there.
        s.sh("cd w && jc-rootfs --upper ../u / -- cat t/f").run().code(0).stdout("new\n");
        s.sh("cd w/t && jc-rootfs --tmpfs /srv / -- pwd").run().code(0).stdout("/\n");
        s.sh("jc-changes --apply / ./u srv tmp && cat w/t/f w/sub/f w/sub/made /tmp/made; ls -d w/t/gone w/t/dir/new").run()
            .stdout("new\nnew\nnew\nx\nw/t/dir/new\n");
        s.sh("jc-changes --discard ./u && rmdir u && rm /tmp/made && umount w/sub w/bound")
            .run()
            .code(0)
            .stderr("");
    });
}

#[test]
fn a_mount_keeps_the_restrictions_that_the_host_gives_it() {
    sandbox(|s| {
        s.sh("mkdir m ro u && mount -t tmpfs -o nosuid,noexec tmpfs m && mount -t tmpfs tmpfs ro && echo x >ro/f &&
            mount -o remount,bind,ro ro && printf '#!/bin/sh\\necho ran' >m/x && chmod 755 m/x")
            .run()
            .code(0);
        let script =
            "/srv/m/x 2>/dev/null || echo no; echo y 2>/dev/null >/srv/ro/f || cat /srv/ro/f
            grep ' /srv/m ' /proc/self/mountinfo | grep -o nosuid,nodev,noexec";
        let ran = s.jc("jc-rootfs").args(["--upper", "u", "/", "--", "sh", "-c", script]).run();
        ran.code(0).stdout("no\nx\nnosuid,nodev,noexec\n");
        s.sh("umount m ro").run().code(0);
    });
}

#[test]
fn an_ordinary_user_protects_the_host_and_a_work_tree() {
    sandbox(|s| protects(s, false));
}

#[test]
fn a_user_with_subordinate_ids_protects_the_host_and_a_work_tree() {
    sandbox(|s| protects(s, true));
}

fn protects(s: &Sandbox, range: bool) {
    let ann = if range { Ann::with_range(s) } else { Ann::new(s) };
    work_tree(s, "ann/w", 4321);
    ann.sh("mkdir u v").run().code(0);
    let before = tree::manifest(&s.path("ann/w"));
    let script = format!(
            "id -u; cd /srv/ann/w && {CHANGE}; echo x 2>/dev/null >bound || echo refused; grep CapEff /proc/self/status | cut -f2
             echo x >/tmp/made; touch /root/x 2>/dev/null || echo no"
        );
    let ran = ann.sh(&format!("exec jc-rootfs --upper u / -- sh -c '{script}'")).run().code(0);
    ran.stdout("4321\nrefused\n0000000000000000\nno\n").stderr("");
    assert_eq!(tree::changes(&before, &tree::manifest(&s.path("ann/w"))), "");
    ann.sh("cd w && jc-rootfs --upper ../u / -- cat t/f").run().code(0).stdout("new\n");
    let all = ann.sh("jc-changes ./u").run().code(0).stderr("").out();
    assert_eq!(all, format!("{}A tmp/made\n", list("srv/ann/w/")));
    let owner = ann.sh("jc-changes --json ./u srv/ann/w/t/f | jq .uid").run();
    owner.stdout("4321\n");
    // A single directory, whose changes are dropped or applied.
    let binds = "-v /bin:/bin -v /lib:/lib -v /lib64:/lib64 -v /usr:/usr";
    let run = format!("jc-rootfs --upper v {binds} w -- /bin/sh -c '{CHANGE}'");
    let twice = format!("{run}; jc-changes --discard ./v; ls v; {run}");
    ann.sh(&twice).run().code(0).stdout("").stderr("");
    ann.sh("jc-changes ./v").run().code(0).stdout(LIST);
    ann.sh("jc-changes --apply w ./v && cat w/t/f w/sub/f w/sub/made; ls -d w/t/gone w/t/dir/new")
        .run()
        .stdout("new\nnew\nnew\nw/t/dir/new\n");
    // The user cannot write to /, and to the directories of the changes only.
    ann.sh("jc-changes --apply / ./u srv tmp && jc-changes --apply / ./u").run().code(0).stderr("");
    ann.sh("cat w/t/f /tmp/made; ls -A / /tmp w w/t w/sub | grep jc-changes; rm /tmp/made")
        .run()
        .stdout("new\nx\n");
    ann.sh("jc-changes --discard ./u && rmdir u").run().code(0).stderr("");
    s.sh("umount ann/w/sub ann/w/bound").run().code(0);
}

#[test]
fn a_bind_has_its_changes_elsewhere() {
    sandbox(|s| {
        busybox_root(s, "root");
        work_tree(s, "w", 0);
        s.sh("mkdir u").run().code(0);
        let before = tree::manifest(&s.path("w"));
        for program in ["jc-rootfs", "jc-run --network none --rootfs root"] {
            let root = if program == "jc-rootfs" { "root" } else { "" };
            let line = format!(
                "{program} -v ./w:/a/src:upper=u,noexec {root} -- sh -c 'cd /a/src && {CHANGE}'"
            );
            s.sh(&line).run().code(0).stderr("");
            assert_eq!(tree::changes(&before, &tree::manifest(&s.path("w"))), "");
            s.sh("jc-changes ./u").run().code(0).stdout(&list(""));
            s.sh("jc-changes --discard ./u && ls u").run().code(0).stdout("");
        }
        let fails = |options: &str, text: &str| {
            let line = format!("jc-rootfs {options} root -- true");
            s.sh(&line).run().code(125).fails_as("jc-rootfs", text);
        };
        fails("-v w/t/f:/f:upper=u", "bind w/t/f: upper=DIR needs a directory");
        fails("-v w:/f:upper=absent/u", "mkdir absent/u: No such file or directory");
        fails("-v w:/f:upper=u,ro", "only create, nosuid and noexec can be given beside it");
        fails("-v absent:/f:upper=u", "stat absent: No such file or directory");
        s.sh("umount w/sub w/bound").run().code(0);
    });
}

#[test]
fn a_place_of_changes_that_is_not_its_own_is_an_error() {
    sandbox(|s| {
        busybox_root(s, "root");
        s.sh("mkdir -p u/lower v && echo '{\"jc\":2}' >v/lower").run().code(0);
        for (place, text) in [("u", "u/lower: not a file"), ("v", "v/lower: ")] {
            let ran = s.jc("jc-rootfs").args(["--upper", place, "root", "--", "true"]).run();
            ran.code(125).fails_as("jc-rootfs", text);
        }
    });
}
