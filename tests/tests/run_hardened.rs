//! The privileges of a payload and the files that it sees, by default and with options. `--print` shows all of them.

#![cfg(target_os = "linux")]

use std::fs;

use jc_tests::cgroups::can_limit;
use jc_tests::lab::all_end;
use jc_tests::roots::busybox_root;
use jc_tests::{Sandbox, diff, sandbox, wait_until};

fn inside(s: &Sandbox, options: &str, script: &str) -> String {
    let line = format!("jc-run {options} --rootfs root -- sh -c '{script}'");
    s.sh(&line).run().code(0).out()
}

const PRIVILEGES: &str =
    "grep -E \"^(Cap(Prm|Eff|Bnd|Inh|Amb)|NoNewPrivs|Seccomp):\" /proc/self/status";

#[test]
fn the_payload_is_hardened_by_default() {
    sandbox(|s| {
        busybox_root(s, "root");
        // CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE SYS_CHROOT
        // SETFCAP, by their numbers (capabilities(7), linux/capability.h).
        let eleven: u64 =
            [0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 31].iter().fold(0, |set, bit| set | 1 << bit);
        let expected = format!(
            "CapInh:\t{0:016x}\nCapPrm:\t{1:016x}\nCapEff:\t{1:016x}\nCapBnd:\t{1:016x}\n\
             CapAmb:\t{0:016x}\nNoNewPrivs:\t1\nSeccomp:\t2\n",
            0, eleven
        );
        assert_eq!(inside(s, "", PRIVILEGES), expected);
        // The filter denies the call, and no capability is missing.
        let unshare = "jc-run --rootfs root -- unshare -U true";
        std::os::unix::fs::symlink("busybox", s.path("root/bin/unshare")).unwrap();
        s.sh(unshare).run().code(1);
        inside(s, "--security-opt seccomp=unconfined", "unshare -U true");
        // Device files of the root do not work, and those in /dev do.
        s.sh("mknod root/null c 1 3; mknod root/tmp/null c 1 3").run().code(0);
        let devices = "echo x > /dev/null; echo x > /null || echo x > /tmp/null || echo neither";
        assert!(inside(s, "", devices).contains("neither"));
        inside(s, "-v /srv/root/tmp:/mnt", "! cat /mnt/null");
        let kinds = "cgroup ipc mnt net pid uts";
        let show = format!("cd /proc/self/ns; for k in {kinds}; do readlink $k; done");
        let (inside_, here) = (inside(s, "", &show), s.sh(&show).run().out());
        for (inside, here) in inside_.lines().zip(here.lines()) {
            assert_ne!(inside, here);
        }
        // The files are masked and read-only.
        assert_eq!(inside(s, "", "cat /proc/timer_list /proc/keys | wc -c"), "0\n");
        assert_eq!(inside(s, "", "echo 1 > /proc/sys/vm/swappiness || echo ro"), "ro\n");
        assert_eq!(inside(s, "", "touch /sys/x || echo ro"), "ro\n");
    });
}

#[test]
fn each_part_can_be_undone_by_name() {
    sandbox(|s| {
        busybox_root(s, "root");
        let privileges = |options: &str, name: &str| {
            let all = inside(s, options, PRIVILEGES);
            let line = all.lines().find_map(|line| line.strip_prefix(&format!("{name}:\t")));
            line.unwrap_or_else(|| panic!("{all}")).to_owned()
        };
        let eleven = privileges("", "CapEff");
        let number = |hex: &str| u64::from_str_radix(hex, 16).unwrap();
        assert_eq!(privileges("--cap-drop ALL", "CapBnd"), "0000000000000000");
        let one = privileges("--cap-drop all --cap-add KILL", "CapEff");
        assert_eq!(number(&one), 1 << 5);
        let more = privileges("--cap-add CAP_NET_RAW --cap-drop chown,fowner", "CapEff");
        assert_eq!(number(&more), number(&eleven) & !0b1001 | 1 << 13);
        let held = s.sh("grep ^CapPrm: /proc/self/status | cut -f2").run().out();
        assert_eq!(privileges("--privileged", "CapEff"), held.trim());
        assert_eq!(
            privileges("--security-opt net-admin=host --cap-add ALL", "CapEff"),
            held.trim()
        );
        assert_eq!(privileges("--privileged", "Seccomp"), "0");
        assert_eq!(privileges("--privileged", "NoNewPrivs"), "0");
        assert_eq!(privileges("--security-opt seccomp=unconfined", "Seccomp"), "0");
        assert_eq!(privileges("--security-opt seccomp=unconfined", "NoNewPrivs"), "1");
        assert_eq!(privileges("--security-opt no-new-privileges=false", "NoNewPrivs"), "0");
        assert_eq!(privileges("--security-opt no-new-privileges", "NoNewPrivs"), "1");
        let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW",
            "syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":77}]}"#;
        fs::write(s.path("profile"), profile).unwrap();
        let ran = s.sh("jc-run --security-opt seccomp=profile --rootfs root -- mkdir /x").run();
        assert!(ran.err().contains("File descriptor in bad state"), "{ran}");
        let lines = "cat /proc/timer_list | wc -l";
        assert_ne!(inside(s, "--security-opt systempaths=unconfined", lines), "0\n");
        inside(s, "--privileged", "test -e /dev/kmsg && touch /sys/x || true");
        for bad in ["apparmor=x", "seccomp=", "nonsense"] {
            let ran = s.sh(&format!("jc-run --security-opt {bad} --rootfs root echo ran")).run();
            ran.code(125).stdout("").fails_as("jc-run", bad);
        }
    });
}

/// A script that shows the whole environment of a payload.
const VIEW: &str = "for k in cgroup ipc mnt net pid uts user; do
        test $(readlink /proc/self/ns/$k) = $(cat /here/$k) && echo $k shared || echo $k own; done
    cat /proc/self/status | grep -vE \"^(Vm|Rss|Hugetlb|voluntary|nonvol|Threads|Cpus|Mems|Ngid|Tgid|Pid|PPid|NSs|NSp|NSt|NSpg|FDSize|State|SigQ)\"
    cat /proc/self/limits /proc/self/cgroup | sed s,/jc[+][0-9a-f]*,/jc+ID,
    cut -d\" \" -f 4- /proc/self/mountinfo
    id; env | sort; pwd; hostname; ls /dev /etc; cat /etc/hostname /etc/resolv.conf
    (cat /etc/hosts; ip -o addr | cut -d\" \" -f 2- | grep -v fe80; ip route; ip -6 route | grep -v fe80) |
        sed -E \"s/10\\.88\\.0\\.([01])([^0-9]|$)/GATEWAY\\1\\2/g; s/10\\.88\\.[0-9.]*|fd[0-9a-f]{2}:[0-9a-f:]*[0-9a-f]|if[0-9]+/ADDRESS/g\"
    ls /proc/self/fd";

#[test]
fn the_printed_chain_is_the_executed_one() {
    sandbox(|s| {
        busybox_root(s, "root");
        fs::create_dir(s.path("here")).unwrap();
        let note = "for k in cgroup ipc mnt net pid uts user; do
            readlink /proc/self/ns/$k > here/$k; done";
        s.sh(note).run().code(0);
        let limits =
            if can_limit("memory") && can_limit("pids") { "-m 64M --pids-limit 50" } else { "" };
        for options in [
            "",
            limits,
            "--read-only --tmpfs /tmp:size=1m -v /etc:/host:ro -w /tmp -u web -e A=b",
            "--privileged --network host",
            "--uts host --ipc host --cap-drop ALL --ulimit nofile=50",
            "--uidmap 0:0:65536 --gidmap 0:0:65536 --init",
            "--pid host",
            "--network none",
        ] {
            // The kernel removes a link shortly after its container is no longer listed.
            let no_link = || {
                all_end(s);
                let links = || s.sh("ip -o link show type veth").run().code(0).out();
                wait_until("no veth is left", || links().is_empty());
            };
            let run = |print: &str| {
                no_link();
                let line = format!(
                    "jc-run {print} {options} -v ./here:/here:ro --rootfs root -- sh -c '{VIEW}' 2>&1"
                );
                s.sh(&line).run().code(0).out()
            };
            let run_view = run("");
            let printed = run("--print");
            // The ID differs each time.
            let without_id = |text: &str, id: &str| text.replace(id, "ID");
            let id_in = |text: &str| {
                let at = text.find("/jc/").map(|at| at + 4).unwrap_or_else(|| panic!("{text}"));
                text[at..at + 12].to_owned()
            };
            no_link();
            let by_hand = s.sh(&printed).run().out();
            let by_hand = without_id(&by_hand, &id_in(&printed));
            let run_view = without_id(&run_view, &id_in(&run_view));
            assert_eq!(diff(&by_hand, &run_view), "", "{options}");
            assert!(run_view.contains("mnt own") && run_view.contains("CapEff"), "{run_view}");
            let json = run("--print=json");
            let vectors: Vec<Vec<String>> = serde_json::from_str(&json).unwrap();
            assert!(vectors.len() >= 3 && vectors.last().unwrap()[0] == "sh", "{json}");
            assert!(
                vectors.iter().rev().skip(1).all(|link| link.last().unwrap() == "--"),
                "{json}"
            );
        }
        s.sh("jc-list").run().code(0);
    });
}

#[test]
fn net_admin_needs_a_user_namespace_or_an_option_that_accepts_the_host() {
    sandbox(|s| {
        busybox_root(s, "root");
        let run =
            |options: &str| s.sh(&format!("jc-run {options} --rootfs root -- echo ran")).run();
        for options in [
            "--cap-add NET_ADMIN",
            "--network none --cap-add CHOWN,cap_net_admin",
            "--cap-add ALL",
            "--userns host --cap-drop ALL --cap-add net_admin",
        ] {
            let refused = run(options).code(125).stdout("");
            assert!(refused.err().contains("hint: --userns auto"), "{refused}");
            assert!(refused.err().contains("--security-opt net-admin=host"), "{refused}");
            refused.fails_as("jc-run", "--cap-add NET_ADMIN: without a user namespace");
        }
        let no_network = "--network none --cap-add NET_ADMIN";
        for options in [
            "--uidmap 0:0:1 --gidmap 0:0:1",
            "--privileged",
            "--security-opt net-admin=host",
            "--cap-drop NET_ADMIN",
        ] {
            run(&format!("{no_network} {options}")).code(0).stdout("ran\n");
        }
        run("--network host --cap-add NET_ADMIN").code(0).stdout("ran\n");
    });
}

#[test]
fn an_option_that_another_program_replaces_is_refused_with_its_command_line() {
    sandbox(|s| {
        busybox_root(s, "root");
        for (option, line) in [
            ("--restart=always", "systemd-run"),
            ("--timeout 5", "timeout 5 jc-run"),
            ("--nice 5", "nice -n 5 jc-run"),
            ("--log-driver syslog", "logger"),
            ("--cidfile f", "jc-run -d"),
            ("--platform linux/arm64", "jc-pull --platform"),
            ("--umask 077", "umask"),
            ("--stop-timeout 5", "jc-stop -t"),
        ] {
            let ran = s.sh(&format!("jc-run {option} --rootfs root -- echo ran")).run();
            assert!(ran.err().contains(line), "{ran}");
            let name = option.split([' ', '=']).next().unwrap();
            ran.code(125).stdout("").fails_as("jc-run", name);
        }
    });
}

#[test]
fn help_is_grouped_by_link() {
    sandbox(|s| {
        let help = s.jc("jc-run").arg("--help").run().code(0).out();
        for heading in ["jc-cgroup:", "jc-net:", "jc-unshare:", "jc-rootfs:"] {
            assert!(help.lines().any(|line| line.ends_with(heading)), "{heading}\n{help}");
        }
        // Each option has one line, so that the text stays readable.
        let (_, options) = help.split_once("\nOptions:\n").unwrap();
        for line in options.lines().filter(|line| !line.is_empty()) {
            assert!(line.ends_with(':') || line.trim_start().starts_with('-'), "{line}\n{help}");
        }
    });
}
