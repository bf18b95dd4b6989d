//! `jc-run --allow`: a container that reaches the hosts of a list only.

#![cfg(target_os = "linux")]

use jc_tests::internet::Internet;
use jc_tests::roots::busybox_root;
use jc_tests::sandbox;

const TOOL: &str = "jc-run";

#[test]
fn the_chain_has_jc_egress_in_place_of_jc_net() {
    sandbox(|s| {
        busybox_root(s, "root");
        let options = "--allow a.example:443 --allow-private b.example:80 --deny c.example:1 --egress-log /srv/log";
        let printed =
            s.sh(&format!("jc-run --print {options} --rootfs root -- true")).run().code(0).out();
        for words in [
            "jc-egress --only-network --resolv-conf",
            "--allow a.example:443 --allow-private b.example:80 --deny c.example:1 --log /srv/log",
        ] {
            assert!(printed.contains(words), "{words}\n{printed}");
        }
        assert!(!printed.contains("jc-net"), "{printed}");
    });
}

#[test]
fn options_that_would_open_the_network_are_refused() {
    sandbox(|s| {
        busybox_root(s, "root");
        for (options, why) in [
            ("--allow a.example:80 -p 80", "ports cannot be published together with --allow"),
            ("--allow a.example:80 -P", "ports cannot be published together with --allow"),
            ("--allow a.example:80 --network host", "--allow makes a network of its own"),
            ("--allow a.example:80 --dns 192.0.2.1", "--allow makes a network of its own"),
            ("--deny a.example:80", "need --allow"),
            ("--egress-log /srv/log", "need --allow"),
        ] {
            let ran = s.sh(&format!("jc-run {options} --rootfs root -- true")).run().code(125);
            ran.fails_as(TOOL, why);
        }
        let wrong =
            s.sh("jc-run --allow nonsense --rootfs root -- true").run().code(125).stdout("");
        wrong.fails_as("jc-egress", "not HOST:PORT");
    });
}

#[test]
fn a_container_teaches_the_rules_that_it_needs() {
    sandbox(|s| {
        let _internet = Internet::start(s);
        busybox_root(s, "root");
        let run = |options: &str| {
            let payload = "sh -c 'echo | nc -w 5 tcp.example 22'";
            s.sh(&format!("jc-run {options} --rootfs root -- {payload}")).run().code(0).out()
        };
        assert_eq!(run("--egress-learn rules"), "SSH-2.0-good\r\n");
        s.sh("cat rules").run().stdout("tcp.example:22\n");
        assert_eq!(run("--allow-file rules"), "SSH-2.0-good\r\n");
        let both =
            s.sh("jc-run --egress-learn rules --allow a.example:80 --rootfs root -- true").run();
        both.code(125).fails_as("jc-egress", "cannot be used with");
    });
}

#[test]
fn containers_reach_allowed_hosts_and_so_does_jc_exec() {
    sandbox(|s| {
        let _internet = Internet::start(s);
        busybox_root(s, "root");
        let id = s
            .sh("jc-run -d --name box --allow tcp.example:22 --rootfs root -- sleep 100")
            .run()
            .code(0)
            .out();
        let id = id.trim();
        let list = s.sh("jc-list").run().code(0).out();
        assert!(list.contains(" egress "), "{list}");
        let state = s.sh("jc-list --json").run().code(0).out();
        assert!(state.contains(r#""jc.network":"egress""#), "{state}");
        assert!(state.contains("198.18.0.1/32"), "{state}");
        let exec = |what: &str| s.sh(&format!("jc-exec box sh -c '{what}'")).run();
        let allowed = exec("echo | nc -w 5 tcp.example 22");
        assert_eq!(allowed.out(), "SSH-2.0-good\r\n", "{allowed}");
        let refused = exec("echo | nc -w 5 203.0.113.66 22");
        assert!(!refused.out().contains("EVIL"), "{refused}");
        let unknown = exec("echo | nc -w 5 evil.example 22");
        assert!(
            !unknown.out().contains("EVIL") && unknown.err().contains("bad address"),
            "{unknown}"
        );
        exec("cat /etc/resolv.conf").code(0).stdout("nameserver 127.0.0.1\n");
        s.sh(&format!("jc-stop -t 0 {id} && jc-rm {id}")).run().code(0);
        s.wait_for_no_process();
    });
}
