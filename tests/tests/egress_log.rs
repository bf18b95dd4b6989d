//! The log of `jc-egress`: a line for each decision, with a bound on their number that hides no refusal.

#![cfg(target_os = "linux")]

use std::fs;
use std::time::Duration;

use jc_tests::internet::{CALLERS, Internet, PYTHON, lines, rules};
use jc_tests::{require, sandbox};

const TOOL: &str = "jc-egress";

#[test]
fn the_log_has_each_decision() {
    sandbox(|s| {
        require(s, "curl", "curl");
        let _internet = Internet::start(s);
        let script = "curl -s http://good.example/; curl -s http://evil.example/; curl -s http://203.0.113.66/; \
                      curl -s -H 'Host: evil.example' http://good.example/; true";
        let by_number = format!("{TOOL} {} --log 9 -- sh -c \"{script}\" 9>>/srv/log", rules());
        s.sh(&by_number).run().code(0);
        let log = lines("/srv/log");
        let find = |key: &str, value: &str| {
            let found = log.iter().find(|line| line[key] == value);
            found.unwrap_or_else(|| panic!("no {key} {value}: {log:?}"))
        };
        let allowed = find("verdict", "allow");
        assert_eq!(allowed["name"], "good.example");
        assert_eq!(allowed["rule"], "good.example:80,443");
        assert!(["203.0.113.10", "2001:db8::10"].contains(&allowed["address"].as_str().unwrap()));
        assert_eq!(allowed["port"], 80);
        assert_eq!(allowed["received"], 42);
        assert!(allowed["sent"].as_u64() > Some(50) && allowed["time"].as_f64() > Some(1e9));
        assert!(allowed["duration"].is_number());
        assert_eq!(find("name", "evil.example")["protocol"], "dns");
        assert_eq!(find("address", "203.0.113.66")["reason"], "no rule");
        assert_eq!(find("reason", "a request for another host")["name"], "good.example");
        let file = format!("{TOOL} {} --log /srv/log -- curl -s http://good.example/", rules());
        s.sh(&file).run().code(0);
        assert_eq!(lines("/srv/log").len(), log.len() + 1, "a file is appended to");
    });
}

#[test]
fn a_log_that_cannot_be_written_ends_the_program() {
    sandbox(|s| {
        let query = "import socket, time; s = socket.socket(2, 2); s.sendto(bytes(20), (\"127.0.0.1\", 53)); time.sleep(100)";
        let command =
            format!("{TOOL} --allow a.example:80 --log /dev/full -- {PYTHON} -c '{query}'");
        let ran = s.sh(&command).run();
        ran.code(125).stdout("").fails_as(TOOL, "write --log: No space left on device");
        s.wait_for_no_process();
    });
}

/// Packets of other protocols than TCP.
const PACKETS: &str = r#"
import socket
def send(family, kind, protocol, to):
    try:
        with socket.socket(family, kind, protocol) as s:
            s.sendto(b"\x08\0\xf7\xff\0\0\0\0", to)
    except OSError as error:
        print(error.errno)
send(2, 2, 17, ("203.0.113.66", 443))
send(10, 2, 17, ("2001:db8::66", 444))
send(2, 2, 17, ("224.0.0.251", 5353))
send(2, 2, 136, ("203.0.113.66", 445))
"#;

#[test]
fn the_log_has_the_packets_that_the_kernel_rejects() {
    sandbox(|s| {
        for (number, caller) in CALLERS.into_iter().enumerate() {
            let log = format!("/srv/log{number}");
            s.sh(&format!("touch {log} && chmod 666 {log}")).run().code(0);
            let command = format!(
                "{caller} {TOOL} --allow a.example:80 --log {log} -- {PYTHON} -c '{PACKETS}'"
            );
            s.sh(&command).run().code(0).stdout("1\n".repeat(4).as_str());
            let lines = lines(&log);
            let shown: Vec<String> = lines
                .iter()
                .map(|l| {
                    format!("{} {} {} {}", l["verdict"], l["protocol"], l["address"], l["port"])
                })
                .collect();
            let expected = [
                r#""deny" "udp" "203.0.113.66" 443"#,
                r#""deny" "udp" "2001:db8::66" 444"#,
                r#""deny" "udp" "224.0.0.251" 5353"#,
                r#""deny" "udplite" "203.0.113.66" 445"#,
            ];
            assert_eq!(shown, expected);
        }
        // A program with capabilities over its network, which a later link confines.
        let raw =
            "import socket; s = socket.socket(2, 3, 1); s.sendto(bytes(8), (\"203.0.113.66\", 0))";
        let command = format!(
            "{TOOL} --only-network --allow a.example:80 --log /srv/raw -- {PYTHON} -c '{raw}'"
        );
        s.sh(&command).run();
        let lines = lines("/srv/raw");
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(lines[0]["protocol"], "icmp");
    });
}

/// A child floods the network with datagrams, and with queries. Meanwhile its parent asks a host.
const FLOOD: &str = r#"
import os, socket, sys
count, family = int(sys.argv[1]), socket.socket(2, 2)
ready, go = os.pipe()
child = os.fork()
if child == 0:
    for number in range(count):
        try:
            family.sendto(b"x", ("203.0.113.66", 9))
        except OSError:
            pass
        if number == count // 10:
            os.write(go, b"!")
    os._exit(0)
os.read(ready, 1)
s = socket.create_connection(("203.0.113.20", 5432), 20)
print(s.recv(12).decode())
os.waitpid(child, 0)
"#;

#[test]
fn a_flood_of_packets_has_a_bounded_log_that_counts_all() {
    sandbox(|s| {
        let _internet = Internet::start(s);
        fs::write("/srv/flood.py", FLOOD).unwrap();
        let count = 100_000;
        let command = format!(
            "{TOOL} --allow 203.0.113.20:5432 --log /srv/log -- {PYTHON} /srv/flood.py {count}"
        );
        let begun = std::time::Instant::now();
        s.sh(&command).timeout(Duration::from_secs(80)).run().code(0).stdout("SSH-2.0-good\n");
        let seconds = begun.elapsed().as_secs() + 2;
        let (mut packets, mut unwritten) = (0, 0);
        for line in lines("/srv/log") {
            packets += u64::from(line["protocol"] == "udp");
            unwritten += line["unwritten"].as_u64().unwrap_or(0);
        }
        assert!(packets <= 1000 * seconds, "{packets} lines in {seconds} s");
        assert_eq!(packets + unwritten, count, "{packets} with a line");
    });
}
