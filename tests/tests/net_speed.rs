//! What `jc-net` costs, in time and in throughput, against what it cannot be faster than, and against
//! what it takes the place of. All in one run, in turns.

#![cfg(target_os = "linux")]

use std::time::{Duration, Instant};

use jc_tests::lab::{Net, contained};
use jc_tests::{Cmd, Sandbox, sandbox_for, skip, workspace_dir};
use rustix::process::Signal;

const TOOL: &str = "jc-net";
const LIMIT: Duration = Duration::from_secs(200);

fn only_as_built() {
    if std::env::var_os("JC_BIN_DIR").is_none() {
        skip!("this is about the programs as `make` builds them");
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn took(command: Cmd) -> f64 {
    let start = Instant::now();
    command.run().code(0).stderr("");
    start.elapsed().as_secs_f64() * 1e3
}

/// The way of scripts: ip(8) in batches, and nft(8) once.
const BY_HAND: &str = r#"
    ip netns add x
    ip -batch - <<END
link add jcx mtu 1500 master jc0 up type veth peer name eth0 netns x
END
    ip -n x -batch - <<END
link set lo up
link set eth0 up
address add 10.88.0.9/16 dev eth0
address add $1/64 dev eth0 nodad
route add default via 10.88.0.1
route add default via $0
END
    nft -f - <<END
table inet x { chain x { type nat hook postrouting priority 100; ip saddr 10.88.0.0/16 oifname != "jc0" masquerade; }; }
END
    exec ip netns exec x true"#;

#[test]
fn a_start_costs_little_more_than_its_messages() {
    sandbox_for(LIMIT, |s| {
        only_as_built();
        let source = workspace_dir().join("tests/tests/net_support/minimal.c");
        let minimal = s.path("minimal");
        s.cmd("cc").args(["-O2", "-static", "-o"]).args([&minimal, &source]).run().code(0);
        let keep = contained(s, &[]);
        let gateway = gateway6(s);
        let address = format!("{gateway}234");
        s.sh("mkdir -p /run/netns").run().code(0);
        let (mut ours, mut least, mut empty, mut by_hand) = (vec![], vec![], vec![], vec![]);
        for round in 0..150 {
            ours.push(took(s.jc(TOOL).args(["--", "/bin/true"])));
            least.push(took(s.cmd(&minimal).args([&gateway, "/bin/true"])));
            empty.push(took(s.jc("jc-unshare").args(["-n", "--", "/bin/true"])));
            if round % 5 == 0 {
                by_hand.push(took(s.cmd("sh").args(["-ec", BY_HAND, &gateway, &address])));
                s.sh("ip netns del x; nft delete table inet x").run().code(0);
                s.sh("while ip link show jcx; do :; done 2>&1").run();
            }
        }
        let [ours, least, empty, by_hand] = [ours, least, empty, by_hand].map(median);
        println!(
            "jc-net {ours:.2} ms, minimal {least:.2}, empty namespace {empty:.2}, by hand {by_hand:.2}"
        );
        assert!(ours < least * 1.3, "{:.2} times the least", ours / least);
        // What is added to a new namespace and the program itself, which are the same in both.
        assert!(by_hand - empty > 8.0 * (ours - empty), "{ours:.2} {empty:.2} {by_hand:.2}");
        keep.signal(Signal::KILL);
        keep.wait();
        s.wait_for_no_process();
        s.sh("rmdir /run/netns; umount -l /run/netns; rmdir /run/netns; true").run();
        std::thread::sleep(Duration::from_millis(200));
        s.jc(TOOL).arg("--gc").run().code(0);
    });
}

fn gateway6(s: &Sandbox) -> String {
    let list = "ip -6 -o addr show dev jc0 scope global | tr -s ' ' | cut -d' ' -f4 | cut -d/ -f1";
    s.sh(list).run().code(0).out().trim().to_owned()
}

/// From the host to a container, as much as over a veth pair in a bridge, both made by hand. A pair
/// without a bridge, whose cost nobody can take away, is measured along with them.
#[test]
fn as_much_gets_through_as_by_hand() {
    sandbox_for(LIMIT, |s| {
        only_as_built();
        let ours = contained(s, &["--ip", "10.88.0.9"]);
        let (by_hand, plain) = (Net::new(), Net::new());
        by_hand.plug("h0", "h1");
        plain.plug("p0", "p1");
        Net::here().sh(
            "ip link add b9 type bridge; ip link set h0 master b9; ip addr add 10.98.0.1/24 dev b9
             ip link set h0 up; ip link set b9 up
             ip addr add 10.99.0.1/24 dev p0; ip link set p0 up",
        );
        by_hand.sh("ip addr add 10.98.0.2/24 dev h1; ip link set h1 up");
        plain.sh("ip addr add 10.99.0.2/24 dev p1; ip link set p1 up");
        let ours_net = Net::of(&ours);
        let nets = [(ours_net, "10.88.0.9"), (by_hand, "10.98.0.2"), (plain, "10.99.0.2")];
        let servers = nets.each_ref().map(|(net, at)| {
            net.enter(|| Cmd::new("iperf3").args(["-s", "-B", at]).timeout(LIMIT).spawn())
        });
        // What one series shows of noise, another does not.
        let is_as_much = (0..3).any(|_| {
            let mut rates = [vec![], vec![], vec![]];
            for _ in 0..7 {
                for ((_, at), rates) in nets.iter().zip(&mut rates) {
                    rates.push(rate(s, at));
                }
            }
            let [through, by_hand, plain] = rates.map(median);
            eprintln!("{through:.2} Gbit/s, by hand {by_hand:.2}, without a bridge {plain:.2}");
            through > by_hand * 0.97
        });
        assert!(is_as_much, "more than 3 percent less than by hand");
        for server in servers {
            server.signal(Signal::KILL);
            server.wait();
        }
        ours.signal(Signal::KILL);
        ours.wait();
        drop(nets);
        s.wait_for_no_process();
        s.sh("ip link del p0; ip link del h0; ip link del b9").run();
        std::thread::sleep(Duration::from_millis(300));
        s.jc(TOOL).arg("--gc").run().code(0);
    });
}

/// In Gbit/s, of a second.
fn rate(s: &Sandbox, at: &str) -> f64 {
    let measure = ["-c", at, "-t", "1", "-J"];
    for _ in 0..50 {
        let ran = s.cmd("iperf3").args(measure).run();
        if ran.status().success() {
            let report: serde_json::Value = serde_json::from_str(&ran.out()).unwrap();
            // A server that is still busy with the last one answers without figures.
            if let Some(rate) = report["end"]["sum_received"]["bits_per_second"].as_f64() {
                return rate / 1e9;
            }
        }
        // The server has not begun yet.
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("no answer from {at}");
}
