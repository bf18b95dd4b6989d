//! Each capability that `--cap-add` gives to a container with all other restrictions, and the ways to the host.

#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::fs;

use jc_tests::accounts::Accounts;
use jc_tests::roots::busybox_root;
use jc_tests::{Ann, Sandbox, sandbox, workspace_dir};

const NAMES: &str = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP
    LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT
    SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE
    AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ
    PERFMON BPF CHECKPOINT_RESTORE";

/// The ways that a capability opens, by their names in reach.c.
fn opened(capability: &str) -> &'static str {
    match capability {
        "SYS_ADMIN" => {
            "mount remount namespace user-namespace bpf perf quota log watch setting kernel-object group"
        }
        "SYS_MODULE" => "module",
        "SYS_RAWIO" => "port",
        "SYS_TIME" => "clock",
        "SYSLOG" => "log",
        "BPF" => "bpf",
        "PERFMON" => "perf",
        "SYS_NICE" => "priority real-time",
        "SYS_RESOURCE" => "score",
        // The records are those of the PID namespace, and the terminal is that of the session.
        "SYS_PACCT" => "accounting",
        "SYS_TTY_CONFIG" => "hangup",
        _ => "",
    }
}

fn root(s: &Sandbox) {
    busybox_root(s, "root");
    let source = workspace_dir().join("tests/tests/rootfs_support/reach.c");
    s.cmd("cc").args(["-static", "-O1", "-o", "root/bin/reach"]).arg(source).run().code(0);
}

/// The ways that are open with these options.
fn ways(s: &Sandbox, options: &str) -> BTreeSet<String> {
    ways_of(s, "", options)
}

fn ways_of(s: &Sandbox, user: &str, options: &str) -> BTreeSet<String> {
    let line = format!("{user} jc-run --network none {options} --rootfs root -- reach");
    let ran = s.sh(&line).run().code(0).stderr("");
    let mut ways: BTreeSet<String> = ran.out().split_whitespace().map(str::to_owned).collect();
    assert!(ways.remove("tried"), "{ran}");
    ways
}

fn are_among(options: &str, found: &BTreeSet<String>, allowed: &str) {
    let allowed: BTreeSet<String> = allowed.split_whitespace().map(str::to_owned).collect();
    let more: Vec<&String> = found.difference(&allowed).collect();
    assert!(more.is_empty(), "{options}: {more:?}");
}

#[test]
fn each_capability_opens_the_ways_that_the_table_names() {
    sandbox(|s| {
        root(s);
        are_among("", &ways(s, ""), "");
        let held = s.sh("capsh --print | sed -n 's/^Bounding set =//p'").run().out();
        for name in NAMES.split_whitespace() {
            if held.contains(&format!("cap_{}", name.to_lowercase())) {
                let options = format!("--cap-add {name}");
                are_among(&options, &ways(s, &options), opened(name));
            }
        }
        // The devices of the container work, and those that the payload makes in it do not.
        let made = "jc-run --network none --cap-add MKNOD --rootfs root -- sh -c \
            'echo x >/dev/null && mknod /dev/d c 1 3 && echo made && ! cat /dev/d'";
        s.sh(made).run().code(0).stdout("made\n");
    });
}

/// The ways that the settings of this host open to every user.
fn for_all_users() -> &'static str {
    let path = "/proc/sys/kernel/perf_event_paranoid";
    let paranoid: i32 = fs::read_to_string(path).unwrap().trim().parse().unwrap();
    if paranoid < 1 { "perf" } else { "" }
}

/// User 0 of the host changes each setting in a /proc/sys that is writable.
#[test]
fn sys_admin_in_a_user_namespace_needs_other_ids_than_those_of_root() {
    sandbox(|s| {
        root(s);
        let accounts = Accounts::of_root(s);
        let refused = |options: &str| {
            let line = format!("jc-run --network none {options} --rootfs root -- reach");
            let ran = s.sh(&line).run().code(125).stdout("");
            ran.fails_as("jc-run", "--cap-add SYS_ADMIN: the user namespace maps root of the host");
        };
        for user in ["--userns auto", "--userns keep-id", "--uidmap 0:0:9 --gidmap 0:0:9"] {
            for added in ["--cap-add SYS_ADMIN", "--cap-add ALL", "--cap-add cap_sys_admin"] {
                refused(&format!("{user} {added}"));
            }
            are_among(user, &ways(s, user), "");
            let others = format!("{user} --cap-add ALL --cap-drop SYS_ADMIN");
            are_among(&others, &ways(s, &others), for_all_users());
        }
        let accepted = "--userns auto --cap-add SYS_ADMIN --security-opt systempaths=unconfined";
        assert!(ways(s, accepted).contains("setting"));
        drop(accounts);
        // User 0 of a user namespace of another user is that user.
        s.sh("mkdir home; chown -R 4321:4321 home root").run().code(0);
        let user =
            "setpriv --reuid=4321 --regid=4321 --clear-groups -- env -u JC_STORE HOME=/srv/home";
        let own = format!("{OWN} {}", for_all_users());
        are_among(user, &ways_of(s, user, "--cap-add ALL"), &own);
    });
}

/// The ways to objects of a user's own namespaces, and to the terminal that the payload shares with its caller.
const OWN: &str = "mount remount namespace user-namespace quota hangup";

#[test]
fn no_capability_opens_another_way_to_a_container_of_an_ordinary_user() {
    sandbox(|s| {
        root(s);
        let user =
            "setpriv --reuid=4321 --regid=4321 --clear-groups -- env -u JC_STORE HOME=/srv/ann";
        s.sh("chown -R 4321:4321 root").run().code(0);
        // The users of the container are one user of the host, or a range of users.
        for ann in [Ann::new, Ann::with_range] {
            let ann = ann(s);
            are_among("", &ways_of(s, user, ""), for_all_users());
            for name in NAMES.split_whitespace() {
                let options = format!("--cap-add {name}");
                let is_own = |way: &&str| OWN.split_whitespace().any(|own| own == *way);
                let mut allowed: Vec<&str> =
                    opened(name).split_whitespace().filter(is_own).collect();
                allowed.push(for_all_users());
                are_among(&options, &ways_of(s, user, &options), &allowed.join(" "));
            }
            drop(ann);
        }
    });
}
