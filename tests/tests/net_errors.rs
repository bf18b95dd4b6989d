//! Errors of `jc-net`, after which no object is left.

#![cfg(target_os = "linux")]

use std::fs;

use jc_tests::lab::{Net, addresses, all_end, contained};
use jc_tests::{Sandbox, require, sandbox};
use rustix::process::Signal;

const TOOL: &str = "jc-net";

/// Checks that there is no link but loopback, and no rule.
fn nothing_is_left(s: &Sandbox) {
    s.sh("ip -o link | cut -d: -f2; nft list ruleset").run().code(0).stdout(" lo\n");
}

fn fails(s: &Sandbox, options: &str, why: &str) -> String {
    let ran = s.sh(&format!("jc-net {options} -- echo ran")).run().code(125).stdout("");
    let told = ran.err();
    ran.fails_as(TOOL, why);
    told
}

/// Another user may have made the FIFO in a shared directory.
#[test]
fn a_fifo_in_place_of_a_namespace_holds_up_no_start() {
    sandbox(|s| {
        s.sh("mkfifo fifo").run().code(0);
        for line in [
            "jc-net --network ns:/srv/fifo -- true",
            "jc-unshare --join-ns net=/srv/fifo -- true",
            "jc-unshare --join-ns uts=/srv/fifo -- true",
        ] {
            let ran = s.sh(line).run().code(125).stdout("");
            ran.fails_as(line.split(' ').next().unwrap(), "setns /srv/fifo: Invalid argument");
        }
    });
}

#[test]
fn a_command_line_that_cannot_be_meant_is_refused() {
    sandbox(|s| {
        for (options, why) in [
            ("--network nonsense", "not one of bridge, none, host, pasta, ns:PATH, join:PID"),
            ("--network ''", "--network"),
            ("--network ns:", "ns:PATH"),
            ("--network join:0", "join: needs the number of a process"),
            ("--ip 10.88.0", "--ip"),
            ("--ip fd00::1", "--ip"),
            ("--ip6 10.88.0.3", "--ip6"),
            ("--mac 01:00:00:00:00:00", "a multicast address"),
            ("--mac 2:0:0:0:0:0", "not six bytes"),
            ("--subnet 10.1.0.1/24", "the subnet is 10.1.0.0/24"),
            ("--subnet 10.1.0.0/31", "too small"),
            ("--subnet 10.1.0.0", "without the length of its prefix"),
            ("--subnet 10.1.0.0/24 --subnet 10.2.0.0/24", "a bridge has one of each family"),
            ("--bridge a/b", "not up to 15 letters"),
            ("--bridge 0123456789abcdef", "not up to 15 letters"),
            ("--mtu x", "--mtu"),
            ("--dns 192.0.2.1", "--resolv-conf"),
            ("--dns nowhere --resolv-conf x", "--dns"),
            ("--hosts x", "not NAME:FILE"),
            ("--network none --ip 10.88.0.2", "--network bridge, not none"),
            ("--network host --internal", "--network bridge, not host"),
            ("--network join:1 --mtu 1400", "--network bridge, not join"),
            ("-p 224.0.0.1:80:80", "224.0.0.1 is a multicast or broadcast address"),
            ("-p 255.255.255.255:80:80", "255.255.255.255 is a multicast or broadcast address"),
            ("-p [ff02::1]:80:80", "[ff02::1] is a multicast or broadcast address"),
            ("-p [::1]:80:80", "publish at ::1: the kernel takes no answers for ::1"),
            ("--list", "an action runs no program"),
            ("--repair", "an action runs no program"),
        ] {
            fails(s, options, why);
        }
        s.jc(TOOL).args(["--list", "--ip", "10.88.0.2"]).run().code(125).stdout("");
        s.jc(TOOL).args(["--gc", "--json"]).run().code(125).stdout("").fails_as(TOOL, "--list");
        s.jc(TOOL).args(["--list", "--gc"]).run().code(125).stdout("");
        s.jc(TOOL).run().code(125).stdout("").fails_as(TOOL, "no program");
        nothing_is_left(s);
    });
}

#[test]
fn a_name_that_is_taken_is_an_error() {
    sandbox(|s| {
        s.sh("ip link add jc0 type veth peer name x0; ip link add br0 type bridge; ip link set br0 up")
            .run()
            .code(0);
        let told = fails(s, "", "jc0: the name of a veth that jc-net has not made");
        assert!(told.contains("hint: --bridge NAME chooses another name"), "{told}");
        fails(s, "--bridge br0", "br0: the name of a bridge that jc-net has not made");
        s.jc(TOOL).args(["--rm-bridge", "br0"]).run().code(125).fails_as(TOOL, "not a bridge that");
        s.jc(TOOL).arg("--gc").run().code(0).stderr("");
        s.sh("ip link del jc0 && ip link del br0").run().code(0);
        nothing_is_left(s);
    });
}

/// A bridge that a SIGKILL left incomplete is made again.
#[test]
fn a_bridge_that_a_kill_left_half_made_is_made_anew() {
    sandbox(|s| {
        let begin = "ip link add jc0 type bridge; ip link set jc0 alias jc
            ip addr add 10.88.0.1/16 dev jc0";
        s.sh(begin).run().code(0);
        s.jc(TOOL).args(["--", "true"]).run().code(0).stderr("");
        s.sh("nft list chain inet jc jc0-nat").run().code(0);
        all_end(s);
        s.jc(TOOL).arg("--gc").run().code(0).stdout("").stderr("");
        s.sh(begin).run().code(0);
        s.jc(TOOL).arg("--gc").run().code(0).stdout("").stderr("");
        nothing_is_left(s);
    });
}

#[test]
fn subnets_mtus_and_addresses_that_cannot_be_are_errors() {
    sandbox(|s| {
        s.sh("ip link add up0 type veth peer name up1; ip link set up1 up; ip addr add 10.0.0.5/8 dev up0; ip link set up0 up")
            .run();
        let told = fails(s, "", "subnet 10.88.0.0/16 overlaps the host's route 10.0.0.0/8 dev up0");
        assert!(told.contains("hint: --subnet chooses another"), "{told}");
        fails(s, "--subnet 10.3.0.0/24", "subnet 10.3.0.0/24 overlaps the host's route 10.0.0.0/8");
        s.sh("ip -6 addr add fd00:5::1/64 dev up0 nodad").run();
        let options = "--subnet 172.20.0.0/24 --subnet fd00:5::/48";
        fails(s, options, "subnet fd00:5::/48 overlaps the host's route fd00:5::/64 dev up0");
        s.sh("ip link del up0").run().code(0);
        // The text is that of the kernel.
        fails(
            s,
            "--mtu 70000",
            "make bridge jc0: Invalid argument: mtu greater than device maximum",
        );
        fails(s, "--mtu 10", "make bridge jc0: Invalid argument: mtu less than device minimum");
        fails(s, "--mtu 1000 --ip6 fd00::5", "jc0");
        nothing_is_left(s);
    });
}

/// A host without IPv6 is no error if no option asks for IPv6.
#[test]
fn ipv6_on_a_host_without_ipv6_is_an_error_with_a_hint() {
    sandbox(|s| {
        let disable = |value: &str| {
            for which in ["all", "default"] {
                let path = format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6");
                fs::write(path, value).unwrap();
            }
        };
        disable("1");
        for options in ["--ip6 fd00::5", "--subnet fd00:7::/64"] {
            let told = fails(s, options, "give jc0 the address");
            assert!(
                told.contains("hint: the sysctl net.ipv6.conf.all.disable_ipv6 is 1"),
                "{told}"
            );
        }
        let one = contained(s, &["-p", "8080:80"]);
        assert_eq!(addresses(&Net::of(&one)).len(), 1);
        let listed = s.jc(TOOL).arg("--list").run().code(0).out();
        assert!(listed.trim_end().ends_with("\t0.0.0.0:8080->80/tcp"), "{listed}");
        fails(s, "--ip6 fd00::5", "jc0 has no IPv6");
        fails(s, "-p [2001:db8::1]:80:80", "the container has no address of that family");
        one.signal(Signal::KILL);
        one.wait();
        s.wait_for_no_process();
        disable("0");
        // A bridge with an MTU below the minimum of IPv6 has no IPv6, and neither have its containers.
        s.jc(TOOL).args(["--bridge", "b0", "--mtu", "1000", "--", "true"]).run().code(0).stderr("");
        all_end(s);
        s.jc(TOOL).arg("--gc").run().code(0);
        nothing_is_left(s);
    });
}

/// jc-net sends messages to nf_tables itself, and needs neither nft(8) nor ip(8).
#[test]
fn ports_are_published_without_another_program() {
    sandbox(|s| {
        let tool = s.bin(TOOL).display().to_string();
        let ran = s.cmd("/usr/bin/env").args(["-i", "PATH=/nowhere", &tool, "-p", "80:80", "--"]);
        ran.arg("/bin/true").run().code(0).stdout("").stderr("");
        all_end(s);
        s.jc(TOOL).arg("--gc").run().code(0);
        nothing_is_left(s);
    });
}

#[test]
fn a_missing_capability_is_named() {
    sandbox(|s| {
        for (capability, mode) in
            [("sys_admin", "none"), ("sys_admin", "bridge"), ("net_admin", "bridge")]
        {
            let drop = format!("--bounding-set=-{capability}");
            let before = [&drop, TOOL, "--network", mode, "--", "echo", "ran"];
            let ran = s.cmd("setpriv").args(before).run().code(125).stdout("");
            let hint = format!("CAP_{}", capability.to_uppercase());
            assert!(ran.err().contains(&hint), "{ran}");
            ran.fails_as(TOOL, "Operation not permitted");
            s.jc(TOOL).arg("--gc").run().code(0);
        }
        // Root of a user namespace is not root of the network of the host.
        let other = "jc-unshare -U -r -- jc-net --network bridge -- echo ran";
        let ran = s.sh(other).run().code(125).stdout("");
        assert!(ran.err().contains("hint: this network namespace belongs to another"), "{ran}");
        // Root of a user namespace is root of a network namespace made there.
        s.sh("jc-unshare -U -r -n -- jc-net -- echo ran").run().code(0).stdout("ran\n").stderr("");
        let ran = s.sh("setpriv --bounding-set=-net_admin jc-net --gc").run().code(125);
        ran.fails_as(TOOL, "");
        nothing_is_left(s);
    });
}

#[test]
fn a_network_namespace_that_exists_can_be_joined() {
    sandbox(|s| {
        let one = contained(s, &["--network", "none"]);
        let path = format!("/proc/{}/ns/net", one.pid());
        let expected = fs::read_link(&path).unwrap().display().to_string() + "\n";
        for mode in [format!("join:{}", one.pid()), format!("ns:{path}")] {
            let show = ["--network", &mode, "--", "readlink", "/proc/self/ns/net"];
            s.jc(TOOL).args(show).run().code(0).stdout(&expected).stderr("");
        }
        fails(s, "--network join:99999", "join 99999: No such process");
        fails(s, "--network ns:/nowhere", "open /nowhere: No such file or directory");
        let told = fails(s, "--network ns:/proc/self/ns/uts", "setns /proc/self/ns/uts: Invalid");
        assert!(told.contains("hint: that is not a network namespace"), "{told}");
        fails(s, "--network ns:/etc/passwd", "setns /etc/passwd: Invalid argument");
        one.signal(Signal::KILL);
        one.wait();
    });
}

/// A failed system call is an error, or the bridge is complete nevertheless.
#[test]
fn a_bridge_never_lacks_rules_for_an_address_that_it_has() {
    sandbox(|s| {
        require(s, "strace", "the package strace");
        let complete = "[ $(ip -o addr show dev jc0 scope global | grep -c .) = 2 ] &&
            nft list chain inet jc jc0-nat | grep -c masquerade";
        for call in ["sendto", "recvfrom"] {
            for n in 1..100 {
                let line = format!(
                    "strace -o log -e trace={call} -e inject={call}:error=ENOBUFS:when={n} \
                     jc-net -- true"
                );
                let ran = s.sh(&line).run();
                let was_injected = fs::read_to_string(s.path("log")).unwrap().contains("INJECTED");
                if ran.status().success() {
                    s.sh(complete).run().code(0).stdout("5\n");
                } else {
                    ran.code(125);
                }
                all_end(s);
                s.jc(TOOL).arg("--gc").run().code(0).stdout("").stderr("");
                if !was_injected {
                    break;
                }
            }
        }
        nothing_is_left(s);
    });
}
