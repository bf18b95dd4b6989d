//! `jc-net` with a bridge: reachable and unreachable hosts, in a fake host with a fake world.

#![cfg(target_os = "linux")]

use std::fs;

use jc_tests::lab::{HOST, Lab, MTU, Net, Transport, WORLD, addresses, all_end, contained};
use jc_tests::{Running, Sandbox, sandbox};
use rustix::process::Signal;

const TOOL: &str = "jc-net";

const BOTH: [Transport; 2] = [Transport::Tcp, Transport::Udp];

fn end(running: Running) {
    running.signal(Signal::KILL);
    running.wait();
}

/// Ends the containers, and checks that no object is left.
fn nothing_remains(s: &Sandbox, running: impl IntoIterator<Item = Running>) {
    running.into_iter().for_each(end);
    s.wait_for_no_process();
    all_end(s);
    s.jc(TOOL).arg("--gc").run().code(0).stdout("").stderr("");
    s.sh("nft list ruleset").run().code(0).stdout("");
}

/// Both families and all protocols reach the host, a neighbour and the world.
#[test]
fn a_container_reaches_all_that_it_should() {
    sandbox(|s| {
        let lab = Lab::new();
        let (a, b) = (contained(s, &[]), contained(s, &[]));
        let (in_a, in_b) = (Net::of(&a), Net::of(&b));
        let (from_a, from_b) = (addresses(&in_a), addresses(&in_b));
        assert!(from_a.len() == 2 && from_b.len() == 2, "{from_a:?} {from_b:?}");
        let all = [&lab.host, &lab.world, &in_b];
        let servers = BOTH.map(|transport| all.map(|net| net.serve(transport, 7)));
        for family in [0, 1] {
            let gateway = in_a.sh(&format!(
                "ip {} route show default | awk '{{print $3}}'",
                ["-4", "-6"][family]
            ));
            for transport in BOTH {
                let ask = |to: &str| in_a.ask(transport, to, 7);
                let own = Some(from_a[family].clone());
                assert_eq!(ask(gateway.trim()), own, "the gateway by {transport:?}");
                assert_eq!(ask(HOST[family]), own, "the host by {transport:?}");
                assert_eq!(ask(&from_b[family]), own, "a neighbour by {transport:?}");
                // The world sees the address of the host.
                let host = Some(HOST[family].to_owned());
                assert_eq!(ask(WORLD[family]), host, "the world by {transport:?}");
                // The host reaches the container too.
                let to_b = lab.host.ask(transport, &from_b[family], 7);
                assert_eq!(to_b.as_deref(), Some(gateway.trim()), "{transport:?}");
            }
            for to in [gateway.trim(), HOST[family], &from_b[family], WORLD[family]] {
                assert!(in_a.pings(to), "{to}");
            }
            // A host with a route to the subnet does not reach the container.
            let route = format!("ip route add {}/128 via {}", from_b[1], HOST[1]);
            let route = if family == 0 {
                format!("ip route add {}/32 via {}", from_b[0], HOST[0])
            } else {
                route
            };
            lab.world.sh(&route);
            assert_eq!(lab.world.ask(Transport::Tcp, &from_b[family], 7), None);
        }
        drop((servers, in_a, in_b));
        nothing_remains(s, [a, b]);
        lab.end();
    });
}

/// The first packet of a container is not lost. A lost packet would be sent again after a second.
#[test]
fn the_cable_is_ready_when_the_program_starts() {
    sandbox(|s| {
        let keep = contained(s, &[]);
        let here = Net::here();
        let server = here.serve(Transport::Udp, 7);
        // bash opens its own sockets, and the answer arrives at once or never.
        let ask = "exec 3<>/dev/udp/10.88.0.1/7; echo >&3; read -r -t 0.5 -n 1 -u 3 x; echo $x";
        let six = "exec 3<>/dev/udp/$(ip -6 route show default | awk '{print $3}')/7; echo >&3
            read -r -t 0.5 -n 1 -u 3 x; echo $x";
        for _ in 0..20 {
            s.jc(TOOL).args(["--", "bash", "-c", ask]).run().code(0).stdout("1\n");
            s.jc(TOOL).args(["--", "bash", "-c", six]).run().code(0).stdout("f\n");
        }
        drop(server);
        nothing_remains(s, [keep]);
    });
}

#[test]
fn internal_and_isolate_stop_what_they_should() {
    sandbox(|s| {
        let lab = Lab::new();
        let start = |options: &[&str]| contained(s, &[&["--bridge"], options].concat());
        let inner = [start(&["in0", "--internal"]), start(&["in0", "--internal"])];
        let apart = [start(&["ap0", "--isolate"]), start(&["ap0", "--isolate"])];
        // Isolated ports drop frames, also where bridges do not pass frames to the firewall.
        lab.host.sh("sysctl -q -w net.bridge.bridge-nf-call-iptables=0 \
            net.bridge.bridge-nf-call-ip6tables=0 2>/dev/null || true");
        let inner_nets = inner.each_ref().map(Net::of);
        let apart_nets = apart.each_ref().map(Net::of);
        let all = [&lab.host, &lab.world, &inner_nets[1], &apart_nets[1]];
        let servers = BOTH.map(|transport| all.map(|net| net.serve(transport, 7)));
        let [inner_to, apart_to] = [&inner_nets[1], &apart_nets[1]].map(addresses);
        for family in [0, 1] {
            let gateway = |net: &Net| {
                let list = format!("ip {} route show default", ["-4", "-6"][family]);
                net.sh(&list).split_whitespace().nth(2).map(str::to_owned)
            };
            assert_eq!(gateway(&inner_nets[0]), None);
            // A container that adds a route itself does not reach the outside either.
            let first = ["10.89.0.1", &inner_to[1][..inner_to[1].rfind(':').unwrap()]][family];
            let first = if family == 0 { first.to_owned() } else { format!("{first}:1") };
            inner_nets[0].sh(&format!("ip route add default via {first}"));
            for transport in BOTH {
                let from_inner = |to: &str| inner_nets[0].ask(transport, to, 7).is_some();
                assert!(from_inner(&inner_to[family]), "a neighbour by {transport:?}");
                assert!(from_inner(&first), "the host by {transport:?}");
                assert!(!from_inner(WORLD[family]), "the world by {transport:?}");
                assert!(!from_inner(&apart_to[family]), "another bridge by {transport:?}");

                let from_apart = |to: &str| apart_nets[0].ask(transport, to, 7).is_some();
                assert!(!from_apart(&apart_to[family]), "a neighbour by {transport:?}");
                assert!(from_apart(WORLD[family]), "the world by {transport:?}");
                assert!(from_apart(HOST[family]), "the host by {transport:?}");
                assert!(!from_apart(&inner_to[family]), "another bridge by {transport:?}");
            }
            // Neither does the route through the host lead to a neighbour.
            let by_host = gateway(&apart_nets[0]).unwrap();
            let length = ["32", "128"][family];
            let to = &apart_to[family];
            apart_nets[0].sh(&format!("ip route add {to}/{length} via {by_host}"));
            assert_eq!(apart_nets[0].ask(Transport::Tcp, to, 7), None);
            assert!(!apart_nets[0].pings(to));
        }
        drop((servers, inner_nets, apart_nets));
        nothing_remains(s, inner.into_iter().chain(apart));
        lab.end();
    });
}

/// The MTU is that of the uplink on the whole path in both directions: a packet of that size arrives unfragmented.
#[test]
fn the_longest_packet_is_the_uplinks() {
    sandbox(|s| {
        let lab = Lab::new();
        let a = contained(s, &[]);
        let net = Net::of(&a);
        assert!(net.sh("ip link show eth0").contains(&format!("mtu {MTU} ")));
        assert!(lab.host.sh("ip link show jc0").contains(&format!("mtu {MTU} ")));
        // The packets must not be fragmented. Their headers have 28 bytes.
        let sizes = |net: &Net, to: &str| {
            [0, 1].map(|more| {
                let script = format!(
                    "timeout 1 perl -MSocket -e 'socket(S, AF_INET, SOCK_DGRAM, 0);
                    setsockopt(S, 0, 10, 2);
                    connect(S, sockaddr_in(7, inet_aton(\"{to}\")));
                    if (defined send(S, \"x\" x {}, 0)) {{ recv(S, $x, 2000, 0); print length $x > 0 }}
                    else {{ print $! + 0 }}'",
                    MTU - 28 + more
                );
                net.sh(&script)
            })
        };
        let servers = [&lab.world, &net].map(|net| net.serve(Transport::Udp, 7));
        let too_long = rustix::io::Errno::MSGSIZE.raw_os_error().to_string();
        assert_eq!(sizes(&net, WORLD[0]), ["1".to_owned(), too_long.clone()]);
        assert_eq!(sizes(&lab.host, &addresses(&net)[0]), ["1".to_owned(), too_long]);
        drop((servers, net));
        nothing_remains(s, [a]);
        lab.end();
    });
}

#[test]
fn a_container_gets_the_addresses_that_are_asked_for() {
    sandbox(|s| {
        let options = [
            "--bridge",
            "b0",
            "--subnet",
            "10.7.0.0/24",
            "--subnet",
            "fd00:7::/64",
            "--mtu",
            "1300",
        ];
        let with = |more: &[&'static str]| [&options[..], more].concat();
        let all = ["--ip", "10.7.0.9", "--ip6", "fd00:7::abc", "--mac", "02:00:00:00:00:07"];
        let a = contained(s, &with(&all));
        let net = Net::of(&a);
        assert_eq!(addresses(&net), ["10.7.0.9", "fd00:7::abc"]);
        let link = net.sh("ip -d link show eth0");
        assert!(link.contains("mtu 1300 ") && link.contains("02:00:00:00:00:07"), "{link}");
        // A link has one queue, and not one for each possible CPU.
        for link in [link, s.sh("ip -d link show jc0a070009").run().code(0).out()] {
            assert!(link.contains("numtxqueues 1 numrxqueues 1 "), "{link}");
        }
        let listed = "b0\tjc0a070009\t10.7.0.9 fd00:7::abc\n";
        s.jc(TOOL).arg("--list").run().code(0).stdout(listed);
        for (more, why) in [
            (&["--ip", "10.7.0.9"][..], "address 10.7.0.9 is in use on b0"),
            (&["--ip6", "fd00:7::abc"], "address fd00:7::abc is in use on b0"),
            (
                &["--ip", "10.7.0.1"],
                "address 10.7.0.1: not one that b0 can give out of 10.7.0.0/24",
            ),
            (&["--ip", "10.7.0.255"], "address 10.7.0.255"),
            (&["--ip", "10.8.0.2"], "address 10.8.0.2"),
            (&["--ip6", "fd00:7::1"], "address fd00:7::1"),
            (&["--ip6", "fd00:8::2"], "address fd00:8::2"),
            (&["--internal"], "b0 exists, and is not internal"),
            (&["--isolate"], "b0 exists, and does not isolate containers"),
        ] {
            let ran = s.jc(TOOL).args(with(more)).args(["--", "echo", "ran"]).run();
            ran.code(125).stdout("").fails_as(TOOL, why);
        }
        for (options, why) in [
            (&["--bridge", "b0", "--mtu", "1400"][..], "its MTU is 1300, not 1400"),
            (&["--bridge", "b0", "--subnet", "10.8.0.0/24"], "its subnet is not 10.8.0.0/24"),
        ] {
            let ran = s.jc(TOOL).args(options).args(["--", "echo", "ran"]).run();
            ran.code(125).stdout("").fails_as(TOOL, why);
        }
        s.jc(TOOL).args(["--rm-bridge", "b0"]).run().code(125).fails_as(TOOL, "is connected to it");
        drop(net);
        end(a);
        all_end(s);
        s.jc(TOOL).args(["--rm-bridge", "b0"]).run().code(0).stdout("").stderr("");
        s.sh("nft list ruleset; ip link show b0 2>&1").run().code(1);
        s.jc(TOOL).args(["--rm-bridge", "b0"]).run().code(125).fails_as(TOOL, "No such device");
    });
}

/// Each /29 has five addresses for containers. The fifth start finds the last one, and the sixth fails.
#[test]
fn a_full_subnet_is_an_error_until_one_ends() {
    sandbox(|s| {
        let options = ["--bridge", "b0", "--subnet", "10.7.0.0/29"];
        let mut all: Vec<Running> = (0..5).map(|_| contained(s, &options)).collect();
        let mut found: Vec<String> =
            all.iter().map(|one| addresses(&Net::of(one))[0].clone()).collect();
        found.sort();
        assert_eq!(found, ["10.7.0.2", "10.7.0.3", "10.7.0.4", "10.7.0.5", "10.7.0.6"]);
        let one_more = || s.jc(TOOL).args(options).args(["--", "ip", "-4", "-o", "addr"]).run();
        let full = one_more().code(125).stdout("");
        full.fails_as(TOOL, "subnet 10.7.0.0/29 of b0 is full: all 5 addresses are in use");
        end(all.remove(2));
        one_more().code(0);
        nothing_remains(s, all);
    });
}

#[test]
fn the_status_says_what_there_is() {
    sandbox(|s| {
        let show = "exec jc-net --status-fd 3 --mac 02:00:00:00:00:09 -- true 3>status";
        s.sh(show).run().code(0).stdout("").stderr("");
        let status = fs::read_to_string(s.path("status")).unwrap();
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        let text = |key: &str| status[key].as_str().unwrap().to_owned();
        let v4 = status["addresses"][0].as_str().unwrap();
        assert_eq!(text("network"), "bridge");
        assert_eq!((text("interface"), text("bridge")), ("eth0".into(), "jc0".into()));
        assert_eq!(text("mac"), "02:00:00:00:00:09");
        assert_eq!(status["mtu"], 1500);
        assert!(v4.starts_with("10.88.") && v4.ends_with("/16"), "{v4}");
        let bytes = v4.trim_end_matches("/16").split('.').map(|b| b.parse::<u8>().unwrap());
        let name: String = bytes.map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text("host-interface"), format!("jc{name}"));
        assert_eq!(status["gateways"][0], "10.88.0.1");
        assert_eq!(status["ports"], serde_json::json!([]));
        for wrong in ["3", "9", "1"] {
            let ran = s.jc(TOOL).args(["--status-fd", wrong, "--", "echo", "ran"]).run();
            ran.code(125).stdout("").fails_as(TOOL, "--status-fd");
        }
        nothing_remains(s, []);
    });
}

#[test]
fn verbose_prints_changes_of_the_host() {
    sandbox(|s| {
        let lab = Lab::new();
        let get = |name: &str| fs::read_to_string(format!("/proc/sys/net/{name}")).unwrap();
        // A new network namespace inherits the setting of the host, where a container may have run.
        s.sh("echo 0 >/proc/sys/net/ipv4/ip_forward").run().code(0);
        let of_v6 = if fs::exists("/proc/sys/net/ipv6/conf/all/force_forwarding").unwrap() {
            "jc-net: set net.ipv6.conf.up0.force_forwarding to 1\n"
        } else {
            "jc-net: set net.ipv6.conf.all.forwarding to 1\n"
        };
        let first = s.jc(TOOL).args(["--verbose", "--", "true"]).run().code(0).stdout("");
        for line in
            ["jc-net: set net.ipv4.conf.up0.forwarding to 1\n", of_v6, "jc-net: made bridge jc0\n"]
        {
            assert!(first.err().contains(line), "{first}");
        }
        assert_eq!(get("ipv4/ip_forward"), "0\n");
        assert_eq!(get("ipv6/conf/jc0/accept_ra"), "0\n");
        let again = s.jc(TOOL).args(["--verbose", "--", "true"]).run().code(0).stdout("");
        assert_eq!(again.err(), "", "nothing is changed twice");
        // A restarted firewall removes the rules, and the next start restores them.
        s.sh("nft flush ruleset").run().code(0);
        let again = s.jc(TOOL).args(["--verbose", "--", "true"]).run().code(0).stdout("");
        assert!(again.err().contains("made the nft rules of jc0 again"), "{again}");
        s.sh("nft list chain inet jc jc0-nat | grep -c masquerade").run().stdout("5\n");
        // Docker's policy, and firewalld's table.
        let docker = "nft add table ip filter
            nft add chain ip filter FORWARD '{ type filter hook forward priority 0; policy drop; }'
            nft add table inet firewalld
            nft add chain inet firewalld filter_FORWARD '{ type filter hook forward priority 10; }'";
        s.sh(docker).run().code(0);
        let told = s.jc(TOOL).args(["--verbose", "--", "true"]).run().code(0).err();
        for chain in ["ip filter FORWARD", "inet firewalld filter_FORWARD"] {
            assert!(told.contains(&format!("jc-net: hint: {chain} drops")), "{told}");
        }
        s.sh("nft flush ruleset").run().code(0);
        nothing_remains(s, []);
        lab.end();
    });
}

#[test]
fn the_next_links_get_files_with_names_and_servers() {
    sandbox(|s| {
        fs::write(s.path("hosts"), "127.0.0.1 localhost\n").unwrap();
        let options = "--dns 192.0.2.7 --dns fd00::7 --dns-search a.example --dns-search b";
        let show = "cat resolv
            ip -o addr show dev eth0 scope global | tr -s \" \" | cut -d\" \" -f4 | cut -d/ -f1";
        let files = "--resolv-conf resolv --hosts box:hosts --hosts two:hosts";
        let line = format!("jc-net {files} {options} -- sh -c '{show}'");
        let out = s.sh(&line).run().code(0).out();
        let (servers, addresses) = out.split_at(out.find("b\n").unwrap() + 2);
        assert_eq!(servers, "nameserver 192.0.2.7\nnameserver fd00::7\nsearch a.example b\n");
        let each = |name: &str| -> String {
            addresses.lines().map(|address| format!("{address}\t{name}\n")).collect()
        };
        let expected = format!("127.0.0.1 localhost\n{}{}", each("box"), each("two"));
        assert_eq!(fs::read_to_string(s.path("hosts")).unwrap(), expected);

        let ran = s.jc(TOOL).args(["--hosts", "box:nowhere", "--", "echo", "ran"]).run();
        ran.code(125).stdout("").fails_as(TOOL, "open nowhere: No such file");
        nothing_remains(s, []);
    });
}

/// The stub of systemd-resolved is unreachable from inside. The servers behind it are reachable.
#[test]
fn a_container_gets_servers_that_it_can_reach() {
    sandbox(|s| {
        let fake = "mkdir -p /run/systemd/resolve
            echo 'nameserver 192.0.2.53' >/run/systemd/resolve/resolv.conf
            printf 'nameserver 127.0.0.53\\noptions edns0\\nsearch lan\\n' >own
            touch /etc/resolv.conf && mount --bind own /etc/resolv.conf";
        s.sh(fake).run().code(0);
        let written = |options: &str| {
            s.sh(&format!("jc-net {options} --resolv-conf out -- cat out")).run().code(0).out()
        };
        let outside = "nameserver 192.0.2.53\nsearch lan\noptions edns0\n";
        assert_eq!(written(""), outside);
        assert_eq!(written("--network host"), "nameserver 127.0.0.53\nsearch lan\noptions edns0\n");
        assert_eq!(written("--network none"), "search lan\noptions edns0\n");
        fs::remove_dir_all("/run/systemd").unwrap();
        let ran = s.sh("jc-net --resolv-conf out -- echo ran").run().code(125).stdout("");
        assert!(ran.err().contains("hint: --dns names one"), "{ran}");
        ran.fails_as(TOOL, "/etc/resolv.conf: names no server that can be reached");
        s.sh("umount /etc/resolv.conf").run().code(0);
        nothing_remains(s, []);
    });
}
