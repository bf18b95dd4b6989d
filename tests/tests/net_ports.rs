//! Published ports of `jc-net`: reachable from everywhere, with the right target, until the link ends.

#![cfg(target_os = "linux")]

use std::fs;
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream, UdpSocket};

use jc_tests::lab::{HOST, Lab, Net, Transport, addresses, all_end, contained};
use jc_tests::{Running, Sandbox, sandbox};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

const TOOL: &str = "jc-net";

/// Kills the links and not their payloads, and checks that no object is left.
fn nothing_remains<const N: usize>(s: &Sandbox, running: [Running; N]) {
    for holder in running {
        holder.signal(Signal::KILL);
        holder.wait().killed_by(Signal::KILL);
    }
    s.wait_for_no_process();
    all_end(s);
    // Only the rules of the bridge are left.
    let tables = s.sh("nft list tables").run().code(0).out();
    assert!(tables == "table inet jc\n" || tables.is_empty(), "{tables}");
    s.jc(TOOL).arg("--gc").run().code(0).stdout("").stderr("");
    s.sh("nft list ruleset").run().code(0).stdout("");
}

#[test]
fn a_port_is_reached_from_outside_from_the_host_and_from_containers() {
    sandbox(|s| {
        let lab = Lab::new();
        let ports = ["-p", "8080:80", "-p", "8053:53/udp"];
        let server = contained(s, &ports);
        let client = contained(s, &[]);
        let (to, from) = (Net::of(&server), Net::of(&client));
        let servers =
            [(Transport::Tcp, 80), (Transport::Udp, 53)].map(|(t, port)| to.serve(t, port));
        let (server_at, client_at) = (addresses(&to), addresses(&from));
        for family in [0, 1] {
            for (transport, port) in [(Transport::Tcp, 8080), (Transport::Udp, 8053)] {
                let at = HOST[family];
                let told = format!("{transport:?} to {at}");
                // A client outside sees the address of the host, and the server sees that of the client.
                let world = lab.world.ask(transport, at, port);
                let expected = ["198.51.100.1", "2001:db8:1::1"][family];
                assert_eq!(world.as_deref(), Some(expected), "the world's {told}");
                assert_eq!(lab.host.ask(transport, at, port).as_deref(), Some(at), "own {told}");
                // A neighbour and the container itself connect through the host.
                assert!(from.ask(transport, at, port).is_some(), "a neighbour's {told}");
                assert!(to.ask(transport, at, port).is_some(), "its own {told}");
                let gateway = to.sh(&format!("ip {} route show default", ["-4", "-6"][family]));
                let gateway = gateway.split_whitespace().nth(2).unwrap().to_owned();
                assert!(from.ask(transport, &gateway, port).is_some(), "{told}'s {gateway}");
                // Only the published port is reachable.
                let direct = lab.world.ask(transport, at, if port == 8080 { 80 } else { 53 });
                assert_eq!(direct, None, "{told}");
            }
        }
        for (transport, port) in [(Transport::Tcp, 8080), (Transport::Udp, 8053)] {
            let by_loopback = lab.host.ask(transport, "127.0.0.1", port);
            assert_eq!(by_loopback.as_deref(), Some("10.88.0.1"), "{transport:?}");
        }
        // IPv6 has no route from the loopback of the host to a container: the kernel refuses the connection.
        let refused = lab.host.enter(|| TcpStream::connect("[::1]:8080")).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        // The route for 127.0.0.1 leads no client to the loopback of the host.
        let private = TcpListener::bind("127.0.0.1:9999").unwrap();
        from.sh("ip route add 127.9.9.9 via 10.88.0.1 2>/dev/null || true");
        assert_eq!(from.ask(Transport::Tcp, "127.9.9.9", 9999), None);
        drop(private);
        assert!(server_at != client_at);

        let listed = s.jc(TOOL).args(["--list"]).run().code(0).out();
        let line = listed.lines().find(|line| line.contains(&server_at[0])).unwrap();
        let expected =
            "0.0.0.0:8080->80/tcp [::]:8080->80/tcp 0.0.0.0:8053->53/udp [::]:8053->53/udp";
        assert!(line.ends_with(expected), "{line}");
        let json = s.jc(TOOL).args(["--list", "--json"]).run().code(0).out();
        let line = json.lines().find(|line| line.contains(&server_at[0])).unwrap();
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(object["ports"].as_array().unwrap().len(), 4, "{object}");
        assert_eq!(object["bridge"], "jc0");
        drop((servers, to, from));
        nothing_remains(s, [server, client]);
        lab.end();
    });
}

#[test]
fn ports_may_be_ranges_have_addresses_and_be_any_free_one() {
    sandbox(|s| {
        let lab = Lab::new();
        let ports = [
            "-p",
            "8000-8002:90-92",
            "-p",
            "127.0.0.1:8100:93",
            "-p",
            "198.51.100.2:8100:94",
            "-p",
            "[2001:db8:1::2]:8100:95",
        ];
        let one = contained(s, &ports);
        let to = Net::of(&one);
        let servers = [90, 92, 93, 94, 95].map(|port| to.serve(Transport::Tcp, port));
        let reaches = |net: &Net, at: &str, port| net.ask(Transport::Tcp, at, port).is_some();
        assert!(reaches(&lab.world, HOST[0], 8000));
        assert!(reaches(&lab.world, HOST[1], 8002));
        assert!(!reaches(&lab.world, HOST[0], 8001), "nobody serves it");
        assert!(!reaches(&lab.world, HOST[0], 8003));
        assert!(reaches(&lab.world, HOST[0], 8100) && reaches(&lab.world, HOST[1], 8100));
        // Servers stop one after the other, to show the target of each port.
        let [to_90, to_92, to_93, to_94, to_95] = servers;
        drop(to_94);
        assert!(reaches(&lab.host, "127.0.0.1", 8100) && !reaches(&lab.world, HOST[0], 8100));
        drop(to_93);
        assert!(!reaches(&lab.host, "127.0.0.1", 8100) && reaches(&lab.world, HOST[1], 8100));
        drop((to_90, to_92, to_95, to));
        nothing_remains(s, [one]);

        let show = "exec jc-net -P --expose 80 --expose 53/udp -p 127.0.0.1::81 --status-fd 3 -- \
                    sh -c 'echo ready; exec sleep 1000' 3>status";
        let mut any = s.sh(show).spawn();
        any.wait_for("ready");
        let status = fs::read_to_string(s.path("status")).unwrap();
        let status: serde_json::Value =
            serde_json::from_str(status.lines().next().unwrap()).unwrap();
        let ports = status["ports"].as_array().unwrap();
        assert_eq!(ports.len(), 5, "{status}");
        let number = |inside: u64| {
            let port = ports.iter().find(|port| port["port"] == inside).unwrap();
            port["host-port"].as_u64().unwrap() as u16
        };
        let to = Net::of(&any);
        let servers = (to.serve(Transport::Tcp, 80), to.serve(Transport::Udp, 53));
        assert!(lab.world.ask(Transport::Tcp, HOST[0], number(80)).is_some());
        assert!(lab.world.ask(Transport::Udp, HOST[1], number(53)).is_some());
        drop((servers, to));
        nothing_remains(s, [any]);
        lab.end();
    });
}

/// A port in use is an error before the program starts. The port is free again after a kill.
#[test]
fn a_port_has_one_holder() {
    sandbox(|s| {
        let tcp = TcpListener::bind("127.0.0.1:8080").unwrap();
        let udp = UdpSocket::bind("[::]:8081").unwrap();
        let attempt = |port: &str| s.jc(TOOL).args(["-p", port, "--", "echo", "ran"]).run();
        for (port, why) in [
            ("8080:80", "publish 0.0.0.0:8080/tcp: the port is in use"),
            ("127.0.0.1:8080:80", "publish 127.0.0.1:8080/tcp: the port is in use"),
            ("8081:80/udp", "publish 0.0.0.0:8081/udp: the port is in use"),
            // The rest of the text is that of the C library for EADDRNOTAVAIL.
            ("192.0.2.77:80:80", "publish 192.0.2.77:80/tcp: "),
            ("7000-7001:80", "the two ranges are not of the same length"),
            ("a:80", "\"a\" is not a port"),
        ] {
            attempt(port).code(125).stdout("").fails_as(TOOL, why);
        }
        attempt("8080:80/udp").code(0).stdout("ran\n");
        drop((tcp, udp));
        let holder = contained(s, &["-p", "8080:80"]);
        attempt("8080:80").code(125).stdout("").fails_as(TOOL, "the port is in use");
        attempt("127.0.0.1:8080:81").code(125).stdout("").fails_as(TOOL, "the port is in use");
        assert!(TcpListener::bind("0.0.0.0:8080").is_err(), "held against others too");
        nothing_remains(s, [holder]);
        attempt("8080:80").code(0).stdout("ran\n");
        for options in [
            &["--internal", "-p", "8080:80"][..],
            &["--network", "none", "-p", "8080:80"],
            &["--network", "host", "-P"],
            &["--expose", "80"],
        ] {
            let ran = s.jc(TOOL).args(options).args(["--", "echo", "ran"]).run();
            ran.code(125).stdout("").fails_as(TOOL, "");
        }
        nothing_remains(s, []);
    });
}

#[test]
fn hundreds_of_ports_are_published() {
    sandbox(|s| {
        // A socket for each port and family stays open.
        let limit = Rlimit { current: Some(4096), ..getrlimit(Resource::Nofile) };
        setrlimit(Resource::Nofile, limit).unwrap();
        let one =
            contained(s, &["-p", "20000-20399:20000-20399", "-p", "20000-20399:30000-30399/udp"]);
        let to = Net::of(&one);
        let here = Net::here();
        let servers = (to.serve(Transport::Tcp, 20399), to.serve(Transport::Udp, 30007));
        assert!(here.ask(Transport::Tcp, "127.0.0.1", 20399).is_some());
        assert!(here.ask(Transport::Udp, "127.0.0.1", 20007).is_some());
        let listed = s.jc(TOOL).arg("--list").run().code(0).out();
        assert_eq!(listed.matches("->").count(), 1600);
        drop((servers, to));
        nothing_remains(s, [one]);
    });
}

/// Without ports the link executes the program and does not wait.
#[test]
fn jc_net_waits_only_if_it_holds_ports() {
    sandbox(|s| {
        let plain = contained(s, &[]);
        assert_eq!(fs::read_to_string(format!("/proc/{}/comm", plain.pid())).unwrap(), "sleep\n");
        assert_eq!(s.processes().len(), 1);
        let holder = contained(s, &["-p", "8080:80"]);
        assert_eq!(fs::read_to_string(format!("/proc/{}/comm", holder.pid())).unwrap(), "jc-net\n");
        // The link keeps the ports, the rules, and the descriptors of its wait open.
        let descriptors = fs::read_dir(format!("/proc/{}/fd", holder.pid())).unwrap().count();
        assert_eq!(descriptors, 2 + 1 + 3);
        nothing_remains(s, [plain, holder]);
    });
}
