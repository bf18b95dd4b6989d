//! `jc-net`, alone.

#![cfg(target_os = "linux")]

use std::fs;

use jc_tests::{keeps_the_contract, sandbox};

const TOOL: &str = "jc-net";

keeps_the_contract!(with_loopback_only, ["jc-net", "--network", "none"], "jc-net");
keeps_the_contract!(with_the_callers_network, ["jc-net", "--network", "host"], "jc-net");
// The bridge ends with its network namespace.
keeps_the_contract!(with_a_bridge, ["jc-unshare", "-n", "jc-net"], "jc-net");
keeps_the_contract!(
    with_published_ports,
    ["jc-unshare", "-n", "jc-net", "-p", "8080:80"],
    "jc-net"
);

#[test]
fn a_program_is_needed() {
    sandbox(|s| drop(s.jc(TOOL).run().code(125).stdout("").fails_as(TOOL, "program")));
}

#[test]
fn loopback_is_all_there_is_and_it_is_up() {
    sandbox(|s| {
        // The payload must not see this link of the caller.
        s.sh("ip link add jcx0 type veth peer name jcx1; ip addr add 10.1.2.3/24 dev jcx0").run();
        for options in [&["--network", "none"][..], &["--network=none"]] {
            let inside = |script| {
                s.jc(TOOL).args(options).args(["--", "sh", "-c", script]).run().code(0).out()
            };
            assert_eq!(inside("ip -o link | cut -d: -f2"), " lo\n");
            assert_eq!(inside("ip -o link | grep -c '[<,]UP[,>]'"), "1\n");
            let addresses = "ip -o addr | awk '{print $4}' | sort";
            let has_v6 = fs::exists("/proc/sys/net/ipv6").unwrap();
            let v6 = if has_v6 { "::1/128\n" } else { "" };
            assert_eq!(inside(addresses), format!("127.0.0.1/8\n{v6}"));
            assert_eq!(inside("ip route; ip -6 route show default"), "");
        }
        s.sh("ip link del jcx0").run().code(0);
    });
}

#[test]
fn loopback_carries_packets() {
    sandbox(|s| {
        let has_v6 = fs::exists("/proc/sys/net/ipv6").unwrap();
        for address in ["127.0.0.1", "::1"].into_iter().take(1 + usize::from(has_v6)) {
            // A server at the end of its input ends the connection, perhaps before the client has sent anything.
            let script = format!(
                "rm -f open; mkfifo open; busybox nc -l -p 7000 >got <>open & server=$!
                until echo hello | busybox nc {address} 7000; do sleep 0.05; done 2>/dev/null
                wait $server; cat got"
            );
            let ran = s.jc(TOOL).args(["--network", "none", "--", "sh", "-c", &script]).run();
            ran.code(0).stdout("hello\n");
        }
    });
}

#[test]
fn links_of_the_caller_are_out_of_reach() {
    sandbox(|s| {
        let script = "busybox nc -l -p 7000 >/dev/null & server=$!
            until busybox nc -w 1 127.0.0.1 7000 </dev/null; do sleep 0.05; done 2>/dev/null
            busybox nc -l -p 7001 >/dev/null & server=$!
            until grep -q ':1B59 ' /proc/net/tcp*; do sleep 0.01; done
            jc-net --network none -- busybox nc -w 1 127.0.0.1 7001 </dev/null 2>/dev/null; echo none $?
            jc-net --network host -- busybox nc -w 1 127.0.0.1 7001 </dev/null; echo host $?
            wait $server";
        s.sh(script).run().stdout("none 1\nhost 0\n");
    });
}

#[test]
fn each_run_has_its_own_namespace_or_the_callers() {
    sandbox(|s| {
        let show = ["readlink", "/proc/self/ns/net"];
        let of = |options: &[&str]| s.jc(TOOL).args(options).args(show).run().code(0).out();
        let here = s.cmd(show[0]).arg(show[1]).run().out();
        assert_eq!(of(&["--network", "host"]), here);
        let (one, two) = (of(&["--network", "none"]), of(&["--network", "none"]));
        assert!(one != here && two != here, "{one} {two} {here}");
    });
}
