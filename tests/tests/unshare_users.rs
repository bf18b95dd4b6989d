//! jc-unshare for an ordinary user, with subordinate IDs and without, and its hints where the machine does not permit
//! it.

#![cfg(target_os = "linux")]

use std::fs;

use jc_tests::accounts::Accounts;
use jc_tests::{Cmd, Ran, Sandbox, require, sandbox};

const TOOL: &str = "jc-unshare";

/// The words in front of a command of the user.
const ANN: [&str; 6] = ["setpriv", "--reuid=4321", "--regid=4321", "--clear-groups", "--", "env"];

/// The line of the user in passwd(5).
const USER: &str = "ann:x:4321:4321::/:/bin/sh\n";

fn ann(s: &Sandbox, command: &[&str]) -> Cmd {
    s.cmd(ANN[0]).args(&ANN[1..]).args(command)
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

const SHOW: &str = "id; cat /proc/self/uid_map; echo; cat /proc/self/gid_map; echo
    cat /proc/self/setgroups; grep -E '^(Uid|Gid|Groups|Cap)' /proc/self/status
    ls -ld /proc/self/. | cut -d' ' -f3,4";

/// The output of a chain of the user.
fn shown(s: &Sandbox, chain: &str) -> String {
    let ran = ann(s, &words(chain)).args(["--", "sh", "-c", SHOW]).run();
    ran.code(0).stderr("").out()
}

/// The options of jc-unshare, and those of unshare(1), whose ranges are `outside,inside,count`.
const WITHOUT_RANGES: [(&str, &str); 9] = [
    ("-U", "-U"),
    ("-U -r", "-U -r"),
    ("-U --map-root", "-U --map-root-user"),
    ("-U -c", "-U -c"),
    ("-U --map-current", "-U --map-current-user"),
    ("-pU -r", "-pfU -r"),
    ("-pU -c", "-pfU -c"),
    ("--all -r", "-puinCTmfU -r"),
    ("--all -c", "-puinCTmfU -c"),
];

const WITH_RANGES: [(&str, &str); 4] = [
    (
        "-U -r --map-users 1:200005:9 --map-groups 1:300005:8",
        "-U -r --map-users 200005,1,9 --map-groups 300005,1,8",
    ),
    (
        "-pU -r --map-users 1:200005:9 --map-groups 1:300005:8",
        "-pfU -r --map-users 200005,1,9 --map-groups 300005,1,8",
    ),
    ("-U --map-auto", "-U -r --map-users 200000,1,1000 --map-groups 300000,1,1000"),
    ("-pU --map-auto", "-pfU -r --map-users 200000,1,1000 --map-groups 300000,1,1000"),
];

/// Maps without the caller. The caller becomes root in jc-unshare, for which unshare(1) has an option.
const OTHERS: [(&str, &str); 2] = [
    (
        "-U --map-users 0:200000:10 --map-groups 0:300000:10",
        "-U --setuid 0 --setgid 0 --map-users 200000,0,10 --map-groups 300000,0,10",
    ),
    (
        "-pU --map-users 0:200000:10 --map-groups 0:300000:10",
        "-pfU --setuid 0 --setgid 0 --map-users 200000,0,10 --map-groups 300000,0,10",
    ),
];

#[test]
fn maps_without_ranges_are_those_of_unshare_1() {
    sandbox(|s| {
        require(s, "newuidmap", "uidmap");
        let _accounts = Accounts::new(s, USER, "root:100000:65536\n", "root:100000:65536\n");
        for (ours, theirs) in WITHOUT_RANGES {
            let here = shown(s, &format!("{TOOL} {ours}"));
            assert_eq!(here, shown(s, &format!("unshare {theirs}")), "{ours} / {theirs}");
        }
        for options in ["-U", "-pU"] {
            let ran = ann(s, &[TOOL, options, "--map-auto", "true"]).run();
            says(ran, "/etc/subuid: no range for ann", "usermod --add-subuids");
            let range = ["--map-users", "0:200000:10"];
            let ran = ann(s, &[TOOL, options, range[0], range[1], "true"]).run();
            says(ran, "newuidmap: uid range", "must be this user's in /etc/subuid");
        }
    });
}

#[test]
fn maps_with_ranges_are_those_of_unshare_1() {
    sandbox(|s| {
        require(s, "newuidmap", "uidmap");
        let _accounts = Accounts::new(s, USER, "bob:1:1\nann:200000:1000\n", "4321:300000:1000\n");
        for (ours, theirs) in WITHOUT_RANGES.iter().chain(&WITH_RANGES).chain(&OTHERS) {
            let here = shown(s, &format!("{TOOL} {ours}"));
            assert_eq!(here, shown(s, &format!("unshare {theirs}")), "{ours} / {theirs}");
        }
        // The whole range, and the owners of files outside.
        let script = "chown 1:1000 mine; exec sleep 0";
        fs::write(s.path("mine"), "").unwrap();
        s.sh("chown 4321:4321 mine").run().code(0);
        ann(s, &[TOOL, "-U", "--map-auto", "sh", "-c", script]).run().code(0);
        s.sh("stat -c %u:%g mine").run().stdout("200000:300999\n");
        // A part of the range of another user.
        let other = ["-U", "--map-users", "0:1:1", "true"];
        let ran = ann(s, &[&[TOOL], &other[..]].concat()).run();
        says(ran, "newuidmap: uid range", "must be this user's in /etc/subuid");
        for options in ["-U", "-pU"] {
            // env(1) has set PATH by then, and its program has a path of its own.
            let path = s.sh("command -v jc-unshare").run().out();
            let line = ["PATH=/nonexistent", path.trim(), options, "--map-auto", "/bin/true"];
            says(ann(s, &line).run(), "run newuidmap: No such file or directory", "package uidmap");
        }
        let ran = ann(
            s,
            &[TOOL, "-U", "--map-auto", "--setgroups", "allow", "cat", "/proc/self/setgroups"],
        );
        ran.run().code(0).stdout("allow\n");
        let ran = ann(
            s,
            &[TOOL, "-U", "--map-auto", "--setgroups", "deny", "cat", "/proc/self/setgroups"],
        );
        ran.run().code(0).stdout("deny\n");
    });
}

/// Checks the message and the hint of a failed command.
#[track_caller]
fn says(ran: Ran, why: &str, hint: &str) {
    let err = ran.err();
    let advice = err.lines().find(|line| line.starts_with("jc-unshare: hint: "));
    assert!(advice.is_some_and(|line| line.contains(hint)), "no hint {hint:?}\n{ran}");
    ran.code(125).stdout("").fails_as(TOOL, why);
}

#[test]
fn a_limit_of_no_namespaces_is_named_in_the_hint() {
    sandbox(|s| {
        for (option, kind) in [
            ("-U", "user"),
            ("-m", "mnt"),
            ("-p", "pid"),
            ("-u", "uts"),
            ("-i", "ipc"),
            ("-n", "net"),
            ("-C", "cgroup"),
            ("-T", "time"),
            ("--all", "user"),
        ] {
            // The limit is that of a user namespace, and not that of the machine.
            let script = format!(
                "echo 0 >/proc/sys/user/max_{kind}_namespaces && exec {TOOL} {option} -- true"
            );
            let ran = ann(s, &[TOOL, "-U", "-r", "sh", "-c", &script]).run();
            says(
                ran,
                "No space left on device",
                &format!("the sysctl user.max_{kind}_namespaces is 0"),
            );
            // The limit of an outer namespace is not visible.
            let script = format!(
                "echo 0 >/proc/sys/user/max_{kind}_namespaces
                 exec {TOOL} -U -r -- {TOOL} {option} -- true"
            );
            let ran = ann(s, &[TOOL, "-U", "-r", "sh", "-c", &script]).run();
            says(
                ran,
                "No space left on device",
                if kind == "user" { "user.max_user_namespaces is 0" } else { "those above it" },
            );
        }
    });
}

#[test]
fn namespaces_nest_32_levels_deep() {
    sandbox(|s| {
        for options in ["-U -r", "-p"] {
            let script =
                "[ $1 -gt 0 ] || exit 7; n=$1; shift; exec jc-unshare $* -- sh nest $((n-1)) $*";
            fs::write(s.path("nest"), script).unwrap();
            let run = |depth: &str| s.sh(&format!("sh nest {depth} {options}")).run();
            run("20").code(7);
            says(run("40"), "No space left on device", "namespaces nest 32 levels deep");
        }
    });
}

/// A sysctl of a distribution is off. The error itself comes from a chroot.
#[test]
fn a_switch_of_the_distribution_is_named_in_the_hint() {
    sandbox(|s| {
        for (name, off) in
            [("unprivileged_userns_clone", "0"), ("apparmor_restrict_unprivileged_userns", "1")]
        {
            let line = format!(
                "mkdir -p sys root; echo {off} >sys/{name}; cp /proc/sys/kernel/overflow?id sys
                 mount --bind sys /proc/sys/kernel; mount --rbind / root
                 chroot root {} {TOOL} -U -- true; code=$?
                 umount -l root; umount /proc/sys/kernel; rm -r sys root; exit $code",
                ANN.join(" ")
            );
            says(
                s.sh(&line).run(),
                "unshare: Operation not permitted",
                &format!("the sysctl kernel.{name} is {off}"),
            );
        }
    });
}

#[test]
fn a_missing_capability_is_named_in_the_hint() {
    sandbox(|s| {
        for option in ["-p", "-u", "-i", "-n", "-C", "-T", "-m"] {
            let ran = ann(s, &[TOOL, option, "true"]).run();
            says(ran, "Operation not permitted", "CAP_SYS_ADMIN");
        }
        // A process without an ID in its user namespace cannot make one, since its files would have no owner.
        let ran = s.jc(TOOL).args(["-U", "--", TOOL, "-U", "true"]).run();
        says(ran, "Operation not permitted", "the caller itself is not mapped");
        let ran = ann(s, &[TOOL, "--join", "1", "true"]).run();
        says(ran, "open /proc/1/ns/", "only root and the user of the process may inspect it");
        let ran = ann(s, &[TOOL, "--join-ns", "uts=/proc/self/ns/uts", "true"]).run();
        ran.code(0);
    });
}

/// CVE-2025-52881: text for a file of procfs went to a file that was mounted over it.
#[test]
fn maps_go_to_procfs_and_nowhere_else() {
    sandbox(|s| {
        fs::write(s.path("other"), "unchanged").unwrap();
        for (place, mount, error) in [
            ("/proc/$$/uid_map", "--bind other", "write /proc/self/uid_map: "),
            ("/proc/$$/setgroups", "--bind other", "write /proc/self/setgroups: "),
            ("/proc/$$", "-t tmpfs none", "write /proc/self/setgroups: "),
            ("/proc", "-t tmpfs none", "open /proc: is not a procfs"),
        ] {
            let script = format!("mount {mount} {place}; exec jc-unshare -U --map-root -- true");
            let ran = s.cmd("unshare").args(["-m", "sh", "-c", &script]).run();
            ran.code(125).fails_as(TOOL, error);
            assert_eq!(fs::read_to_string(s.path("other")).unwrap(), "unchanged", "{place}");
        }
    });
}
