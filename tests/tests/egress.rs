//! `jc-egress`: permitted connections, denied connections, and the contract of links.

#![cfg(target_os = "linux")]

use std::fs;
use std::time::Duration;

use jc_tests::internet::{CALLERS, Internet, PYTHON, lines, rules};
use jc_tests::volume::volume;
use jc_tests::{Sandbox, require, sandbox};
use rustix::process::Signal;
use serde_json::Value;

const TOOL: &str = "jc-egress";

#[test]
fn programs_reach_the_hosts_of_the_rules_only() {
    sandbox(|s| {
        require(s, "curl", "curl");
        let _internet = Internet::start(s);
        for caller in CALLERS {
            let run = |what: &str| s.sh(&format!("{caller} {TOOL} {} -- {what}", rules())).run();
            run("curl -sS http://good.example/").code(0).stdout("good").stderr("");
            run("curl -sS http://listed.example/").code(6).stdout("");
            let refused = run("curl -sS http://203.0.113.66/");
            // The reset comes while curl connects, sends or receives.
            assert!([7, 55, 56].contains(&refused.status().code().unwrap()), "{refused}");
            run("curl -sS http://evil.example/").code(6).stdout("");
        }
        let listed = s.jc(TOOL).args(["--allow", "listed.example:80", "--", "curl", "-sS"]);
        // A name of the host's /etc/hosts. The server accepts any Host header.
        listed.arg("http://listed.example/").run().code(0).stdout("good");
    });
}

#[test]
fn the_programs_own_services_are_its_own() {
    sandbox(|s| {
        let script = r#"
import socket, threading
for family, bound, address in [(2, "0.0.0.0", "127.0.0.1"), (2, "0.0.0.0", "198.18.0.1"), (10, "::", "::1"),
                               (2, "127.0.0.7", "127.0.0.7"), (10, "::", "fd6a:6365:6772::1")]:
    server = socket.socket(family); server.setsockopt(1, 2, 1); server.bind((bound, 8080)); server.listen()
    client = socket.create_connection((address, 8080), 2)
    peer, _ = server.accept(); peer.send(b"own"); print(client.recv(9).decode()); server.close()
one, two = socket.socket(type=2), socket.socket(type=2)
one.bind(("127.0.0.1", 9000)); two.sendto(b"datagram", ("127.0.0.1", 9000)); print(one.recv(20).decode())
"#;
        for caller in CALLERS {
            let command = format!("{caller} {TOOL} --allow a.example:80 -- {PYTHON} -c '{script}'");
            s.sh(&command).run().code(0).stdout("own\nown\nown\nown\nown\ndatagram\n");
        }
    });
}

#[test]
fn connections_behave_as_direct_ones() {
    sandbox(|s| {
        let _internet = Internet::start(s);
        fs::write("/srv/server.py", include_str!("egress_support/server.py")).unwrap();
        fs::write("/srv/client.py", include_str!("egress_support/client.py")).unwrap();
        let mut server = s.sh(&format!("exec {PYTHON} /srv/server.py")).spawn();
        server.wait_for("ready\n");
        let command =
            format!("{TOOL} --allow 203.0.113.20:7000 -- {PYTHON} /srv/client.py 203.0.113.20");
        s.sh(&command).run().code(0).stdout("done\n");
        server.signal(Signal::KILL);
        server.wait();
    });
}

#[test]
fn a_failed_dial_resets_the_connection() {
    sandbox(|s| {
        let _internet = Internet::start(s);
        let connect = "import socket; s = socket.create_connection((\"203.0.113.20\", 7001), 5); print(s.recv(1))";
        let command =
            format!("{TOOL} --allow 203.0.113.20:7001 --log /srv/log -- {PYTHON} -c '{connect}'");
        let ran = s.sh(&command).run().code(1).stdout("");
        assert!(ran.err().contains("ConnectionResetError"), "{ran}");
        let log = lines("/srv/log");
        assert_eq!(log[0]["verdict"], "allow");
        assert_eq!(log[0]["error"], "Connection refused");
    });
}

#[test]
fn all_addresses_of_a_name_are_tried() {
    sandbox(|s| {
        let _internet = Internet::start(s);
        fs::write("/srv/hosts", "203.0.113.21 two.example\n203.0.113.20 two.example\n").unwrap();
        let script = r#"
import socket, subprocess, threading
server = socket.create_server(("203.0.113.20", 7001))
threading.Thread(target=lambda: server.accept()[0].send(b"second"), daemon=True).start()
client = "import socket; print(socket.create_connection((\"two.example\", 7001), 5).recv(9))"
subprocess.run(["jc-egress", "--allow", "two.example:7001", "--log", "/srv/log", "--", "/usr/bin/python3", "-c", client])
"#;
        s.cmd(PYTHON).args(["-c", script]).run().code(0).stdout("b'second'\n");
        assert_eq!(lines("/srv/log")[0]["address"], "203.0.113.20");
    });
}

#[test]
fn connections_beyond_the_limit_of_descriptors_wait() {
    sandbox(|s| {
        let _internet = Internet::start(s);
        fs::write("/srv/server.py", include_str!("egress_support/server.py")).unwrap();
        let mut server = s.sh(&format!("exec {PYTHON} /srv/server.py")).spawn();
        server.wait_for("ready\n");
        // Twelve connections at a time have six descriptors each, beside the others.
        let script = r#"
import select, socket
many = [socket.create_connection(("203.0.113.20", 7000), 20) for _ in range(30)]
for s in many:
    s.sendall(b"echo\nx")
for s in many[:12]:
    assert s.recv(1) == b"x"
assert not select.select(many[12:], [], [], 0.2)[0]
for s in many[:12]:
    s.close()
for s in many[12:]:
    assert s.recv(1) == b"x"
    s.close()
print("done")
"#;
        let command = format!(
            "prlimit --nofile=200:200 {TOOL} --allow 203.0.113.20:7000 -- {PYTHON} -c '{script}'"
        );
        s.sh(&command).run().code(0).stdout("done\n").stderr("");
        server.signal(Signal::KILL);
        server.wait();
    });
}

#[test]
fn first_bytes_must_come_in_time() {
    sandbox(|s| {
        let _internet = Internet::start(s);
        let wait = "import socket; s = socket.create_connection((\"good.example\", 443), 5); s.settimeout(20); s.recv(1)";
        let command =
            format!("{TOOL} --allow good.example:443 --log /srv/log -- {PYTHON} -c '{wait}'");
        let ran = s.sh(&command).run().code(1);
        assert!(ran.err().contains("ConnectionResetError"), "{ran}");
        assert_eq!(lines("/srv/log")[0]["reason"], "no first bytes in time");
    });
}

#[test]
fn rules_come_from_options_and_files() {
    sandbox(|s| {
        require(s, "curl", "curl");
        let _internet = Internet::start(s);
        fs::write("/srv/rules", "# hosts\ngood.example:80 # one\n\n*.wild.example:80\n").unwrap();
        let run = |options: &str, url: &str| {
            let ran = s.sh(&format!("{TOOL} {options} -- curl -s {url}")).run();
            ran.status().code() == Some(0)
        };
        let file = "--allow-file /srv/rules";
        assert!(run(file, "http://good.example/"));
        assert!(run(file, "http://a.wild.example/"));
        assert!(!run(&format!("{file} --deny good.example:80"), "http://good.example/"));
        assert!(run(&format!("{file} --deny good.example:443"), "http://good.example/"));
        assert!(!run(&format!("{file} --deny '*.wild.example:*'"), "http://a.wild.example/"));
        assert!(!run(&format!("{file} --deny 203.0.113.0/24:*"), "http://a.wild.example/"));
        assert!(!run("--allow private.example:80", "http://private.example/"));
        assert!(run(
            "--allow private.example:80:tcp --allow-private private.example:80:tcp",
            "--http0.9 http://private.example/"
        ));
    });
}

#[test]
fn command_lines_that_cannot_be_meant() {
    sandbox(|s| {
        fs::write("/srv/wrong", "a.example:443\nb.example\n").unwrap();
        for (options, why) in [
            ("", "no rule: --allow, --allow-private or --allow-file gives some, and --learn all"),
            ("--learn /srv/x --allow a.example:80", "cannot be used with"),
            ("--allow a.example", "not HOST:PORT[,PORT...][:tls|http|tcp|ech]"),
            ("--allow a.example:53", "port 53: all of it goes to jc-egress's own resolver"),
            ("--allow 127.0.0.1:80", "leads to the program's own network namespace"),
            ("--allow 198.18.3.1:80", "leads to the program's own network namespace"),
            ("--allow 10.0.0.1/8:80", "the subnet is 10.0.0.0/8"),
            ("--allow 1.2.3:80", "not the name of a host"),
            ("--allow a.example:80:udp", "not one of tls, http, tcp, ech"),
            ("--allow-private 10.0.0.0/8:80", "addresses are dialled as they are"),
            ("--allow-file /srv/none", "open /srv/none: No such file or directory"),
            ("--allow-file /srv/wrong", "/srv/wrong line 2: not HOST:PORT"),
            ("--allow a.example:80 --log 9", "--log 9: Bad file descriptor"),
            ("--allow a.example:80 --log /none/x", "open /none/x: No such file or directory"),
            ("--allow a.example:80 --log 1", "descriptors up to 2 belong to the program"),
            ("--allow a.example:80 --only-network --preserve-fds 1", "cannot be used with"),
        ] {
            let ran = s.sh(&format!("{TOOL} {options} -- echo ran")).run().code(125).stdout("");
            ran.fails_as(TOOL, why);
        }
        s.jc(TOOL).args(["--allow", "a.example:80"]).run().code(125).fails_as(TOOL, "no program");
    });
}

#[test]
fn the_program_is_an_ordinary_payload() {
    sandbox(|s| {
        for caller in CALLERS {
            let run =
                |what: &str| s.sh(&format!("{caller} {TOOL} --allow a.example:80 {what}")).run();
            run("-- sh -c 'exit 42'").code(42);
            run("-- sh -c 'kill -9 $$'").code(137);
            run("-- /none").code(127).fails_as(TOOL, "exec /none: No such file or directory");
            run("-- /etc/passwd").code(126).fails_as(TOOL, "exec /etc/passwd: Permission denied");
            let signals = "grep -E 'Sig(Ign|Blk)' /proc/self/status";
            let plain = s.sh(signals).run().code(0).out();
            run(&format!("-- {signals}")).code(0).stdout(&plain);
            run("-- sh -c 'ls /proc/self/fd | wc -l' 7</dev/null").code(0).stdout("4\n");
            run("--preserve-fds 5 -- sh -c 'readlink /proc/self/fd/7' 7</dev/null")
                .code(0)
                .stdout("/dev/null\n");
            run("-- cat").code(0).stdout("");
        }
    });
}

#[test]
fn signals_reach_the_program_and_its_death_is_shown() {
    sandbox(|s| {
        let script = "trap 'echo got; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
        let mut running =
            s.jc(TOOL).args(["--allow", "a.example:80", "--", "sh", "-c", script]).spawn();
        running.wait_for("ready\n");
        running.signal(Signal::TERM);
        running.wait().code(3).stdout("ready\ngot\n");
    });
}

#[test]
fn nothing_is_left_when_the_proxy_is_killed() {
    sandbox(|s| {
        for caller in CALLERS {
            let command = format!(
                "exec {caller} {} --allow a.example:80 -- sh -c 'echo ready; exec sleep 100'",
                s.bin(TOOL).display()
            );
            let mut running = s.sh(&command).spawn();
            running.wait_for("ready\n");
            running.signal(Signal::KILL);
            running.wait().killed_by(Signal::KILL);
            s.wait_for_no_process();
        }
    });
}

#[test]
fn the_network_alone_is_for_a_later_link_to_confine() {
    sandbox(|s| {
        require(s, "curl", "curl");
        let _internet = Internet::start(s);
        fs::write("/srv/hosts.new", "").unwrap();
        let files = "--resolv-conf /srv/resolv.new --hosts box:/srv/hosts.new --status-fd 9";
        let command = format!(
            "{TOOL} --only-network {} {files} -- sh -c 'readlink /proc/self/ns/user; curl -s http://good.example/' 9>/srv/status",
            rules()
        );
        let own = fs::read_link("/proc/self/ns/user").unwrap().display().to_string();
        s.sh(&command).run().code(0).stdout(&format!("{own}\ngood"));
        assert_eq!(fs::read_to_string("/srv/resolv.new").unwrap(), "nameserver 127.0.0.1\n");
        let hosts = fs::read_to_string("/srv/hosts.new").unwrap();
        assert_eq!(hosts, "198.18.0.1\tbox\nfd6a:6365:6772::1\tbox\n");
        let status: Value = lines("/srv/status").remove(0);
        assert_eq!(status["network"], "egress");
        assert_eq!(status["addresses"][0], "198.18.0.1/32");
        let user = format!("{} {TOOL} --only-network {} -- true", CALLERS[1], rules());
        s.sh(&user).run().code(125).fails_as(TOOL, "clone3: Operation not permitted");
    });
}

/// However early the proxy dies, the program does not outlive it.
#[test]
fn no_program_outlives_a_killed_proxy() {
    sandbox(|s| {
        for delay in 0..100 * u64::from(volume()) {
            let options = ["--allow", "a.example:80", "--log", "/srv/log", "--", "sleep", "1000"];
            let running = s.jc(TOOL).args(options).spawn();
            std::thread::sleep(Duration::from_micros(delay % 100 * 60));
            running.signal(Signal::KILL);
            running.wait().killed_by(Signal::KILL);
        }
        s.wait_for_no_process();
    });
}

#[test]
fn the_program_dies_with_the_proxy_that_it_kills() {
    sandbox(|s| {
        for caller in CALLERS {
            let script = "kill -9 $PPID; exec sleep 1000";
            let command = format!("exec {caller} {TOOL} --allow a.example:80 -- sh -c '{script}'");
            s.sh(&command).run().killed_by(Signal::KILL).stdout("");
            s.wait_for_no_process();
        }
    });
}

#[test]
fn connections_go_on_after_a_stop_of_the_proxy() {
    sandbox(|s| {
        let _internet = Internet::start(s);
        let script = r#"
import os, select, signal, socket
os.kill(os.getppid(), signal.SIGSTOP)
s = socket.create_connection(("203.0.113.20", 5432), 5)
print(select.select([s], [], [], 0.3)[0])
os.kill(os.getppid(), signal.SIGCONT)
print(s.recv(12).decode())
"#;
        for caller in CALLERS {
            let command =
                format!("{caller} {TOOL} --allow 203.0.113.20:5432 -- {PYTHON} -c '{script}'");
            s.sh(&command).run().code(0).stdout(
                "[]
SSH-2.0-good
",
            );
        }
    });
}

fn websocket(s: &Sandbox, answer: &str) -> String {
    let script = format!(
        r#"
import socket, threading
server = socket.create_server(("203.0.113.20", 8000))
def serve():
    peer, _ = server.accept(); peer.recv(4096); peer.send(b"{answer}"); print(peer.recv(4096), flush=True)
threading.Thread(target=serve, daemon=True).start()
import subprocess
client = '''
import socket
s = socket.create_connection(("ws.example", 8000), 5); s.settimeout(2)
s.send(b"GET / HTTP/1.1\\r\\nHost: ws.example:8000\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\n\\r\\n")
print(s.recv(4096), flush=True)
s.send(b"frame")
try: s.recv(1)
except OSError: pass
'''
subprocess.run(["jc-egress", "--allow", "ws.example:8000:http", "--", "{PYTHON}", "-c", client])
"#
    );
    fs::write("/srv/hosts", "203.0.113.20 ws.example\n").unwrap();
    s.cmd(PYTHON).args(["-c", &script]).run().code(0).out()
}

#[test]
fn websocket_passes_once_the_server_has_switched() {
    sandbox(|s| {
        let _internet = Internet::start(s);
        let switched = websocket(s, r"HTTP/1.1 101 Switching Protocols\r\n\r\n");
        assert!(switched.contains("b'frame'"), "{switched}");
        let other = websocket(s, r"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        assert!(other.contains("200 OK") && !other.contains("frame"), "{other}");
    });
}
