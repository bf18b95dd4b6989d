//! `jc-net --network pasta`: a network for users without privileges on the host.

#![cfg(target_os = "linux")]

use std::fs;

use jc_tests::lab::{Lab, Transport, WORLD};
use jc_tests::{Cmd, Sandbox, sandbox};
use rustix::process::Signal;

const TOOL: &str = "jc-net";

/// A shell command of an ordinary user, who can open /dev/net/tun as with udev.
fn user(s: &Sandbox, script: &str) -> Cmd {
    let tun = "[ -w /dev/net/tun ] && [ \"$(stat -c %a /dev/net/tun)\" = 666 ] || {
        mknod tun c 10 200 && chmod 666 tun && mount --bind tun /dev/net/tun; }";
    s.sh(tun).run().code(0);
    s.cmd("setpriv").args(["--reuid=1000", "--regid=1000", "--clear-groups", "sh", "-c", script])
}

fn end(s: &Sandbox) {
    s.wait_for_no_process();
    s.sh("umount /dev/net/tun 2>/dev/null; rm -f tun").run();
}

#[test]
fn pasta_carries_packets_to_the_world_and_back() {
    sandbox(|s| {
        let lab = Lab::new();
        let servers = [Transport::Tcp, Transport::Udp].map(|t| lab.world.serve(t, 7));
        // The default network of an ordinary user.
        let ask = format!(
            "exec jc-unshare -U -r -- jc-net -- bash -c '
                exec 3<>/dev/tcp/{0}/7; read -r -t 2 x <&3; echo $x
                exec 3<>/dev/udp/{0}/7; echo >&3; read -r -t 2 -n 1 -u 3 x; echo $x
                exec 3<>/dev/tcp/{1}/7; read -r -t 2 x <&3; echo $x
                exit 7'",
            WORLD[0], WORLD[1]
        );
        let ran = user(s, &ask).run().code(7).stderr("");
        ran.stdout("198.51.100.2\n1\n2001:db8:1::2\n");
        drop(servers);
        end(s);
        lab.end();
    });
}

#[test]
fn pasta_publishes_ports_until_the_program_ends() {
    sandbox(|s| {
        let lab = Lab::new();
        let script = "exec jc-unshare -U -r -- jc-net -p 8080:80 -p 127.0.0.1:8053:53/udp \
                      --status-fd 3 -- sh -c 'echo ready; exec busybox httpd -f -p 80 -h /srv/www' \
                      3>/tmp/status";
        s.sh("mkdir www; echo hello >www/index.html; chmod -R a+rX .").run().code(0);
        let mut holder = user(s, script).spawn();
        holder.wait_for("ready");
        let status = fs::read_to_string("/tmp/status").unwrap();
        let status: serde_json::Value =
            serde_json::from_str(status.lines().next().unwrap()).unwrap();
        assert_eq!((&status["network"], &status["interface"]), (&"pasta".into(), &"eth0".into()));
        assert_eq!(status["ports"].as_array().unwrap().len(), 3, "{status}");
        // The server waits for a question: this pasta (0.0~git20230309) loses data of a server that sends first and
        // closes, if the client is outside.
        for (net, at) in [(&lab.host, "127.0.0.1"), (&lab.world, "198.51.100.2")] {
            let get = format!("busybox wget -q -O - http://{at}:8080/");
            assert_eq!(net.sh(&get), "hello\n", "{at}");
        }
        let again = user(s, "jc-unshare -U -r -- jc-net -p 8080:80 -- echo ran").run();
        again.code(125).stdout("").fails_as(TOOL, "the port is in use");
        // A kill of jc-net ends pasta and the program.
        holder.signal(Signal::KILL);
        holder.wait().killed_by(Signal::KILL);
        end(s);
        fs::remove_file("/tmp/status").unwrap();
        lab.end();
    });
}

#[test]
fn pasta_is_refused_where_a_bridge_is_the_way() {
    sandbox(|s| {
        let lab = Lab::new();
        let ran = s.jc(TOOL).args(["--network", "pasta", "--", "echo", "ran"]).run().code(125);
        assert!(ran.err().contains("hint: use --network bridge"), "{ran}");
        ran.fails_as(TOOL, "not available to root of the host");
        let ran = user(s, "jc-net -- echo ran").run().code(125).stdout("");
        assert!(ran.err().contains("hint: ") && ran.err().contains("jc-unshare -U -r"), "{ran}");
        let tool = s.bin(TOOL).display().to_string();
        let unshare = s.bin("jc-unshare").display().to_string();
        let without = format!("PATH=/nowhere {unshare} -U -r -- {tool} -- /bin/echo ran");
        let ran = user(s, &without).run().code(125).stdout("");
        assert!(ran.err().contains("hint: Debian's package passt"), "{ran}");
        ran.fails_as(TOOL, "pasta: not found in PATH");
        let ran = user(s, "jc-unshare -U -r -- jc-net -p 80:80/sctp -- echo ran").run();
        ran.code(125).stdout("").fails_as(TOOL, "sctp");
        // The last line of pasta is part of the error.
        s.sh("ip route del default; ip -6 route del default").run().code(0);
        let ran = user(s, "jc-unshare -U -r -- jc-net -- echo ran").run().code(125).stdout("");
        ran.fails_as(TOOL, "pasta: ");
        end(s);
        lab.end();
    });
}
