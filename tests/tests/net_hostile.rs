//! `jc-net` against payloads, neighbours, other users of the host, and leftovers of containers.

#![cfg(target_os = "linux")]

use std::fs;
use std::net::UdpSocket;
use std::time::Duration;

use jc_tests::accounts::Accounts;
use jc_tests::lab::{HOST, Lab, Net, PATIENCE, Transport, addresses, all_end, contained};
use jc_tests::roots::busybox_root;
use jc_tests::{Ann, Running, Sandbox, sandbox, wait_until, workspace_dir};
use rustix::process::Signal;

const TOOL: &str = "jc-net";
/// A setpriv(1) line that becomes a user without privileges.
const NOBODY: &str = "setpriv --reuid 65534 --regid 65534 --clear-groups --";

fn end(running: Running, signal: Signal) {
    running.signal(signal);
    running.wait();
}

fn nothing_remains(s: &Sandbox) {
    s.wait_for_no_process();
    all_end(s);
    s.jc(TOOL).arg("--gc").run().code(0).stdout("").stderr("");
    s.sh("nft list ruleset; ls /run; ip -o link | cut -d: -f2")
        .run()
        .code(0)
        .stdout("mount\n lo\n");
}

/// Every user can lock the namespace itself, and only root can lock the file of jc-net.
#[test]
fn another_user_cannot_hold_up_starts_by_a_lock() {
    sandbox(|s| {
        let hold = "exec 9</proc/self/ns/net; flock -x 9; echo ready; exec sleep 1000";
        let mut holder = s.sh(&format!("exec {NOBODY} sh -c '{hold}'")).spawn();
        holder.wait_for("ready");
        s.jc(TOOL).args(["--", "echo", "ran"]).run().code(0).stdout("ran\n").stderr("");
        let look = format!("{NOBODY} ls /run/jc-net");
        assert!(s.sh(&look).run().err().contains("Permission denied"));
        s.sh("stat -c %a /run/jc-net /run/jc-net/*").run().code(0).stdout("700\n600\n");
        all_end(s);
        s.jc(TOOL).args(["--rm-bridge", "jc0"]).run().code(0).stderr("");
        end(holder, Signal::KILL);
        nothing_remains(s);
    });
}

/// A directory that another user could list or fill is an error.
#[test]
fn a_lock_directory_of_another_user_is_refused() {
    sandbox(|s| {
        for make in ["install -d -o nobody /run/jc-net", "install -d -m 755 /run/jc-net"] {
            s.sh(make).run().code(0);
            let ran = s.jc(TOOL).args(["--", "echo", "ran"]).run().code(125).stdout("");
            ran.fails_as(TOOL, "open /run/jc-net/");
            s.sh("rmdir /run/jc-net").run().code(0);
        }
        nothing_remains(s);
    });
}

/// A client in the world that keeps its source port, like a DNS forwarder.
fn client(lab: &Lab) -> UdpSocket {
    lab.world.enter(|| {
        let socket = UdpSocket::bind("198.51.100.1:4000").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect((HOST[0], 5353)).unwrap();
        socket
    })
}

fn is_answered(client: &UdpSocket) -> bool {
    client.set_nonblocking(true).unwrap();
    while client.recv(&mut [0; 100]).is_ok() {}
    client.set_nonblocking(false).unwrap();
    client.send(b"?").unwrap();
    client.recv(&mut [0; 100]).is_ok()
}

#[test]
fn a_udp_client_reaches_the_container_that_has_the_port_now() {
    sandbox(|s| {
        let lab = Lab::new();
        let client = client(&lab);
        let start = |ip| contained(s, &["--ip", ip, "-p", "5353:53/udp"]);
        // The client sends before the container exists.
        assert!(!is_answered(&client));
        for (ip, signal) in [("10.88.0.5", Signal::KILL), ("10.88.0.6", Signal::TERM)] {
            let container = start(ip);
            let inside = Net::of(&container);
            let server = inside.serve(Transport::Udp, 53);
            assert!(is_answered(&client), "{ip}");
            drop((server, inside));
            end(container, signal);
            s.wait_for_no_process();
            if signal == Signal::KILL {
                client.send(b"renews the entry").unwrap();
            }
        }
        // A service of the host uses the port after a container has ended normally.
        let service = UdpSocket::bind("0.0.0.0:5353").unwrap();
        service.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        client.send(b"?").unwrap();
        service.recv(&mut [0; 100]).unwrap();
        drop(service);
        lab.end();
        nothing_remains(s);
    });
}

#[test]
fn the_next_owner_of_an_address_gets_no_datagrams_of_the_one_before() {
    sandbox(|s| {
        let lab = Lab::new();
        let client = client(&lab);
        let keep = contained(s, &[]);
        let first = contained(s, &["--ip", "10.88.0.9", "-p", "5353:53/udp"]);
        let inside = Net::of(&first);
        let server = inside.serve(Transport::Udp, 53);
        assert!(is_answered(&client));
        drop((server, inside));
        end(first, Signal::KILL);
        all_but_end(s, 1);
        // The lease is the name of the link, which the kernel removes shortly after the end of the last process.
        wait_until("the end of the link", || {
            !s.sh("ip link show jc0a580009").run().status().success()
        });
        let second = contained(s, &["--ip", "10.88.0.9"]);
        let inside = Net::of(&second);
        let server = inside.serve(Transport::Udp, 53);
        assert!(!is_answered(&client));
        drop((server, inside));
        [keep, second].into_iter().for_each(|one| end(one, Signal::KILL));
        lab.end();
        nothing_remains(s);
    });
}

/// Waits until `count` containers are connected.
fn all_but_end(s: &Sandbox, count: usize) {
    wait_until("the end of containers", || {
        s.jc(TOOL).arg("--list").run().code(0).out().lines().count() == count
    });
}

/// The rules of published ports lead to an address, and live as long as the waiting link, which keeps them after the
/// payload has removed its own network link.
#[test]
fn ports_of_a_container_that_removed_its_link_lead_to_no_other() {
    sandbox(|s| {
        let bridge = ["--bridge", "b0", "--subnet", "10.7.0.0/24", "--subnet", "fd00:7::/64"];
        let with = |more: &[&'static str]| [&bridge[..], more].concat();
        let keep = contained(s, &with(&["--ip", "10.7.0.7", "--ip6", "fd00:7::7"]));
        let one = ["--ip", "10.7.0.9", "--ip6", "fd00:7::9", "-p", "8080:80"];
        let first = contained(s, &with(&one));
        Net::of(&first).sh("ip link del eth0");
        for (taken, address) in [
            (&["--ip", "10.7.0.9"][..], "10.7.0.9"),
            (&["--ip", "10.7.0.8", "--ip6", "fd00:7::9"], "fd00:7::9"),
            (&["--ip", "10.7.0.9", "-p", "8081:80"], "10.7.0.9"),
        ] {
            let ran = s.jc(TOOL).args(with(taken)).args(["--", "echo", "ran"]).run();
            assert!(!ran.err().contains("hint:"), "{ran}");
            ran.code(125).stdout("").fails_as(TOOL, &format!("address {address} is in use on b0"));
        }
        end(first, Signal::KILL);
        s.jc(TOOL).args(with(&one)).args(["--", "echo", "ran"]).run().code(0).stdout("ran\n");
        end(keep, Signal::KILL);
        nothing_remains(s);
    });
}

/// A neighbour that sends router advertisements could redirect a container that accepts them (CVE-2020-10749).
#[test]
fn a_container_obeys_no_router_advertisement_where_the_host_has_no_ipv6() {
    sandbox(|s| {
        for which in ["all", "default"] {
            fs::write(format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6"), "1").unwrap();
        }
        for isolate in [&["--bridge", "b0"][..], &["--bridge", "b1", "--isolate"]] {
            let one = contained(s, isolate);
            let inside = Net::of(&one);
            let settings = "cd /proc/sys/net/ipv6/conf/eth0; cat accept_ra disable_ipv6
                ip -6 addr show dev eth0";
            assert_eq!(inside.sh(settings), "0\n1\n");
            drop(inside);
            end(one, Signal::KILL);
        }
        nothing_remains(s);
    });
}

/// A container could otherwise use the addresses of the host or of other hosts.
#[test]
fn a_service_of_the_host_gets_nothing_from_addresses_that_are_not_the_bridges() {
    sandbox(|s| {
        for which in ["all", "default"] {
            fs::write(format!("/proc/sys/net/ipv4/conf/{which}/rp_filter"), "0").unwrap();
        }
        let one = contained(s, &["-p", "8080:80"]);
        let inside = Net::of(&one);
        let [v4, v6] = <[String; 2]>::try_from(addresses(&inside)).unwrap();
        let gateway = inside.sh("ip -6 route show default").split(' ').nth(2).unwrap().to_owned();
        let send = "socket(S, AF_INET, SOCK_RAW, 255);
            $to = inet_aton(\"10.88.0.1\"); $udp = pack(\"nnnna2\", 1, 9999, 10, 0, \"hi\");
            $ip = pack(\"CCnnnCCna4a4\", 0x45, 0, 0, 0, 0, 64, 17, 0, inet_aton($ARGV[0]), $to);
            send(S, $ip . $udp, 0, sockaddr_in(0, $to))";
        let four = UdpSocket::bind("0.0.0.0:9999").unwrap();
        let six = UdpSocket::bind("[::]:9998").unwrap();
        for source in ["127.0.0.2", "127.9.9.9", "8.8.8.8", "10.89.0.7", &v4] {
            inside.sh(&format!("perl -MSocket -e '{send}' {source}"));
        }
        inside.sh("ip -6 addr add 2001:db8:bad::1/128 dev eth0 nodad");
        for source in ["2001:db8:bad::1", &v6] {
            let send = || {
                let socket = UdpSocket::bind((source, 0)).unwrap();
                socket.send_to(b"hi", (gateway.as_str(), 9998)).unwrap();
            };
            inside.enter(send);
        }
        for (service, own) in [(&four, &v4), (&six, &v6)] {
            service.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let (_, peer) = service.recv_from(&mut [0; 100]).unwrap();
            assert_eq!(peer.ip().to_string(), *own, "the first datagram that came through");
        }
        drop(inside);
        end(one, Signal::KILL);
        nothing_remains(s);
    });
}

/// Makes a root with a payload that attacks links of other network namespaces by their numbers, and a link of the
/// host for the attack.
fn attackers_root(s: &Sandbox) {
    busybox_root(s, "root");
    let source = workspace_dir().join("tests/tests/net_support/nsid.c");
    s.cmd("cc").args(["-static", "-O1", "-o", "root/bin/nsid"]).arg(source).run().code(0);
    s.sh("chmod 755 . root; ip link add victim type bridge").run().code(0);
}

/// The links of the host that no start makes or removes.
const HOST_LINKS: &str = "ip -o link | grep -v ' jc0' | sed 's/master.*//'";

/// In the user namespace of the host, the payload could list and change the links of the host.
#[test]
fn a_payload_with_net_admin_in_a_user_namespace_controls_no_link_of_the_host() {
    sandbox(|s| {
        attackers_root(s);
        let accounts = Accounts::of_root(s);
        let before = s.sh(HOST_LINKS).run().code(0).out();
        let run = |options: &str| {
            let line = format!("jc-run --cap-add NET_ADMIN {options} --rootfs root -- nsid");
            s.sh(&format!("{line} /host/net >out 2>errors; code=$?; cat out errors; exit $code"))
                .run()
                .code(0)
                .out()
        };
        for options in [
            "--userns auto",
            "--userns auto --network none",
            "--userns auto --cap-add ALL --security-opt seccomp=unconfined --security-opt systempaths=unconfined",
            "--userns auto --pid host",
            "--userns auto -v /proc/1/ns:/host",
        ] {
            assert_eq!(run(options), "done\n", "{options}");
            let ended = "i=0; while ip -o link show type veth | grep -q .; do
                [ $((i += 1)) -lt 400 ] || exit; sleep 0.01; done";
            s.sh(ended).run().code(0);
            assert_eq!(s.sh(HOST_LINKS).run().code(0).out(), before, "{options}");
        }
        // The attack succeeds if the command line accepts it.
        let accepted = run("--security-opt net-admin=host");
        for start in ["lists victim", "makes planted", "deletes victim", "macvlan on"] {
            assert!(accepted.lines().any(|line| line.starts_with(start)), "{start}: {accepted}");
        }
        s.sh("for link in $(ip -o link | cut -d: -f2 | cut -d@ -f1); do ip link del $link; done")
            .run();
        drop(accounts);
        nothing_remains(s);
    });
}

#[test]
fn a_payload_of_an_ordinary_user_controls_no_link_of_the_host() {
    sandbox(|s| {
        attackers_root(s);
        let ann = Ann::new(s);
        ann.sh("cp -a /srv/root own").run().code(0);
        let before = s.sh("ip -o link").run().code(0).out();
        let run = "jc-run --cap-add NET_ADMIN --network none --rootfs own";
        // The chain shows the processes of the host.
        let chain = "jc-unshare -U --map-root -- jc-net --network none -- jc-rootfs own";
        for line in [run, &format!("{run} -v /proc/self/ns:/host"), chain] {
            let ran = ann
                .sh(&format!(
                    "{line} -- nsid /host/net >out 2>errors; code=$?; cat out errors; exit $code"
                ))
                .run();
            assert_eq!(ran.code(0).out(), "done\n", "{line}");
            assert_eq!(s.sh("ip -o link").run().code(0).out(), before, "{line}");
        }
        // The container uses the network of the host itself.
        let ran = ann.sh("jc-run --network host --rootfs own -- nsid").run();
        let own: Vec<String> = ran.code(0).out().lines().map(str::to_owned).collect();
        let is_reading = |line: &String| line.starts_with("lists ") || line == "done";
        assert!(own.iter().all(is_reading), "{own:?}");
        assert_eq!(s.sh("ip -o link").run().code(0).out(), before);
        s.sh("ip link del victim").run().code(0);
    });
}

/// CVE-2025-52881: a setting is never written to a file that is mounted over it.
#[test]
fn settings_go_to_procfs_and_nowhere_else() {
    sandbox(|s| {
        let lab = Lab::new();
        let setting = "/proc/sys/net/ipv4/conf/up0/forwarding";
        fs::write(s.path("other"), "0\n").unwrap();
        for (mount, error) in [
            (format!("--bind other {setting}"), setting),
            (format!("--bind /proc/sys/kernel/core_pattern {setting}"), setting),
            ("-t tmpfs none /proc/sys/net".to_owned(), "open /proc/sys/net: is not in a procfs"),
        ] {
            let script = format!("mount {mount}; exec jc-net -- echo ran");
            let ran = s.cmd("unshare").args(["-m", "sh", "-c", &script]).run();
            assert!(ran.err().contains(error), "{mount}: {ran}");
            ran.code(125).stdout("");
            assert_eq!(fs::read_to_string(s.path("other")).unwrap(), "0\n", "{mount}");
        }
        // A sandbox that gives its payload a network mounts /proc/sys/net in this way.
        let script = "mount --bind /proc/sys/net /proc/sys/net; exec jc-net -- echo ran";
        s.cmd("unshare").args(["-m", "sh", "-c", script]).run().code(0).stdout("ran\n");
        all_end(s);
        lab.end();
        nothing_remains(s);
    });
}
