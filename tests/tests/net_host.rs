//! Changes of `jc-net` to the host: only those that a bridge needs, which the last bridge undoes.

#![cfg(target_os = "linux")]

use std::fs;

use jc_tests::lab::{HOST, Lab, Net, Transport, WORLD, addresses, all_end, contained};
use jc_tests::{Running, Sandbox, sandbox};
use rustix::process::Signal;

const TOOL: &str = "jc-net";

fn end(running: Running) {
    running.signal(Signal::KILL);
    running.wait();
}

fn setting(name: &str) -> String {
    fs::read_to_string(format!("/proc/sys/net/{name}")).unwrap().trim().to_owned()
}

/// A host without forwarding, with an uplink.
fn host_that_is_no_router() -> Lab {
    let lab = Lab::new();
    fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
    fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "0").unwrap();
    lab
}

fn nothing_remains(s: &Sandbox) {
    s.wait_for_no_process();
    all_end(s);
    s.jc(TOOL).arg("--gc").run().code(0).stdout("").stderr("");
    s.sh("nft list ruleset; ls /run").run().code(0).stdout("mount\n");
}

#[test]
fn links_forward_only_while_a_bridge_needs_them() {
    sandbox(|s| {
        let lab = host_that_is_no_router();
        let v6 = if fs::exists("/proc/sys/net/ipv6/conf/all/force_forwarding").unwrap() {
            "ipv6/conf/up0/force_forwarding"
        } else {
            "ipv6/conf/all/forwarding"
        };
        let is = |value: &str| {
            assert_eq!((&*setting("ipv4/conf/up0/forwarding"), &*setting(v6)), (value, value));
            assert_eq!(setting("ipv4/ip_forward"), "0");
            // The host accepts router advertisements before, during and after the life of the bridges.
            let own = (setting("ipv6/conf/up0/accept_ra"), setting("ipv6/conf/up0/forwarding"));
            assert_eq!(own, ("1".to_owned(), "0".to_owned()));
        };
        let start = |bridge: &[&str]| {
            s.jc(TOOL)
                .args(["--bridge"])
                .args(bridge)
                .args(["--", "true"])
                .run()
                .code(0)
                .stderr("");
        };
        is("0");
        start(&["in0", "--internal"]);
        is("0");
        ["b0", "b1"].iter().for_each(|bridge| start(&[bridge]));
        is("1");
        all_end(s);
        // The bridge that has changed the links is removed first.
        for (bridge, value) in [("b0", "1"), ("b1", "0"), ("in0", "0")] {
            s.jc(TOOL).args(["--rm-bridge", bridge]).run().code(0).stderr("");
            is(value);
        }
        // A router stays a router.
        start(&["b0"]);
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        nothing_remains(s);
        assert_eq!(setting("ipv4/conf/up0/forwarding"), "1");
        lab.end();
    });
}

/// A second network of the host, with one member.
fn second_network(lab: &Lab) -> Net {
    let lan = Net::new();
    lan.plug("lan0", "l0");
    lab.host.sh("ip addr add 192.0.2.1/24 dev lan0; ip -6 addr add 2001:db8:2::1/64 dev lan0 nodad
        ip link set lan0 up");
    lan.sh("ip addr add 192.0.2.9/24 dev l0; ip -6 addr add 2001:db8:2::9/64 dev l0 nodad
        ip link set l0 up; ip route add default via 192.0.2.1
        ip -6 route add default via 2001:db8:2::1");
    lab.world.sh(&format!(
        "ip route add 192.0.2.0/24 via {}; ip -6 route add 2001:db8:2::/64 via {}",
        HOST[0], HOST[1]
    ));
    lan
}

#[test]
fn containers_reach_each_network_of_the_host_which_becomes_no_router_between_them() {
    sandbox(|s| {
        let lab = host_that_is_no_router();
        let lan = second_network(&lab);
        let one = contained(s, &["-p", "8080:80"]);
        let inside = Net::of(&one);
        let servers = [(&inside, 80), (&lan, 7), (&lab.world, 7)]
            .map(|(net, port)| net.serve(Transport::Tcp, port));
        for (family, at) in ["192.0.2.9", "2001:db8:2::9"].into_iter().enumerate() {
            let tcp = |net: &Net, to: &str, port| net.ask(Transport::Tcp, to, port);
            assert!(tcp(&inside, at, 7).is_some(), "a container and {at}");
            assert!(tcp(&inside, WORLD[family], 7).is_some(), "a container and the world");
            let own = ["192.0.2.1", "2001:db8:2::1"][family];
            assert!(tcp(&lan, own, 8080).is_some(), "the second network and a published port");
            assert!(tcp(&lab.world, HOST[family], 8080).is_some(), "the world and that port");
            assert_eq!(tcp(&lab.world, at, 7), None, "the world and the second network");
            assert_eq!(tcp(&lan, WORLD[family], 7), None, "the second network and the world");
            assert_eq!(tcp(&lan, &addresses(&inside)[family], 80), None, "by routing");
        }
        drop((servers, inside));
        end(one);
        lab.host.sh("ip link del lan0");
        lab.end();
        nothing_remains(s);
    });
}

#[test]
fn gc_leaves_alone_what_others_have_made() {
    sandbox(|s| {
        s.jc(TOOL).args(["--", "true"]).run().code(0).stderr("");
        let foreign = "nft add table ip jc; nft add chain ip jc foo-nat
            nft add chain inet jc x-nat
            ip link add b0 address 02:6a:63:00:00:01 type bridge
            ip link add b1 type bridge; ip link set b1 alias 'jc lab'";
        s.sh(foreign).run().code(0);
        all_end(s);
        s.jc(TOOL).arg("--gc").run().code(0).stdout("").stderr("");
        let left =
            "ip -o link | cut -d: -f2; nft list tables; nft list chain inet jc x-nat >/dev/null
            nft list chain ip jc foo-nat >/dev/null";
        s.sh(left).run().code(0).stdout(" lo\n b0\n b1\ntable inet jc\ntable ip jc\n");
        for bridge in ["b0", "b1"] {
            let ran = s.jc(TOOL).args(["--rm-bridge", bridge]).run().code(125);
            ran.fails_as(TOOL, "not a bridge that jc-net has made");
        }
        s.sh("nft flush ruleset; ip link del b0; ip link del b1").run().code(0);
        // Chains of other programs with the names of a bridge's chains.
        s.sh("nft add table inet jc; nft add chain inet jc jc0-nat").run().code(0);
        let ran = s.jc(TOOL).args(["--", "echo", "ran"]).run().code(125).stdout("");
        assert!(ran.err().contains("hint: nft delete table inet jc"), "{ran}");
        ran.fails_as(TOOL, "nft chain inet jc jc0-nat: not made by this jc-net");
        s.sh("nft flush ruleset").run().code(0);
        nothing_remains(s);
    });
}

/// A restarted firewall removes all rules except those of published ports.
#[test]
fn repair_brings_back_the_rules_of_every_bridge() {
    sandbox(|s| {
        let lab = host_that_is_no_router();
        let one = contained(s, &["-p", "8080:80"]);
        let inner = contained(s, &["--bridge", "in0", "--internal"]);
        let inside = Net::of(&one);
        let servers = [80, 81].map(|port| inside.serve(Transport::Tcp, port));
        let direct = addresses(&inside).remove(0);
        lab.world.sh(&format!("ip route add {direct}/32 via {}", HOST[0]));
        let bridges = "nft list table inet jc";
        let before = s.sh(bridges).run().code(0).out();
        s.sh("nft flush ruleset").run().code(0);
        fs::write("/proc/sys/net/ipv4/conf/up0/forwarding", "0").unwrap();
        for _ in 0..2 {
            s.jc(TOOL).arg("--repair").run().code(0).stdout("").stderr("");
            assert_eq!(s.sh(bridges).run().code(0).out(), before);
        }
        assert!(lab.world.ask(Transport::Tcp, HOST[0], 8080).is_some());
        assert_eq!(lab.world.ask(Transport::Tcp, &direct, 81), None, "not published");
        drop((servers, inside));
        [one, inner].into_iter().for_each(end);
        lab.end();
        nothing_remains(s);
    });
}
