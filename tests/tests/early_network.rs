//! Network namespaces that a program creates while the chain starts: `--net-fd` of the links, jc-run and jc-oci.

#![cfg(target_os = "linux")]

mod oci_support;

use std::fs;

use jc_tests::roots::busybox_root;
use jc_tests::{Ran, Sandbox, require, sandbox};
use oci_support::Bundle;
use rustix::process::Signal;
use serde_json::json;

/// Starts a program with one end of a socket as descriptor 9, and sends the file of its first argument some time later.
/// Without a file, the script closes the socket.
const SENDER: &str = r#"
import os, socket, sys, time
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
pid = os.fork()
if pid == 0:
    os.dup2(theirs.fileno(), 9)
    os.execvp(sys.argv[2], sys.argv[2:])
theirs.close()
time.sleep(0.3)
if sys.argv[1]:
    socket.send_fds(ours, [b"x"], [os.open(sys.argv[1], os.O_RDONLY)])
ours.close()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

/// Runs a chain that gets a file by its descriptor 9.
fn send(s: &Sandbox, file: &str, chain: &str) -> Ran {
    require(s, "/usr/bin/python3", "python3");
    fs::write(s.path("send.py"), SENDER).unwrap();
    s.sh(&format!("exec /usr/bin/python3 send.py '{file}' {chain}")).run()
}

#[test]
fn jc_rootfs_waits_for_the_namespace_and_enters_it_before_it_mounts_sys() {
    sandbox(|s| {
        busybox_root(s, "root");
        let holder = s.sh("exec jc-unshare -n -- sh -c 'ip link add seen type dummy 2>/dev/null || ip link add seen type veth; echo up; exec sleep 1000'");
        let mut holder = holder.spawn();
        holder.wait_for("up");
        let file = format!("/proc/{}/ns/net", holder.pid());
        let own = fs::read_link(&file).unwrap().display().to_string();
        for chain in ["", "jc-unshare -puiC --", "jc-cgroup --"] {
            let chain = format!(
                "{chain} jc-rootfs --net-fd 9 --upper tmpfs root -- \
                 sh -c 'readlink /proc/self/ns/net; ls /sys/class/net | grep seen; ls /proc/self/fd'"
            );
            send(s, &file, &chain).code(0).stderr("").stdout(&format!("{own}\nseen\n0\n1\n2\n3\n"));
        }
        holder.signal(Signal::KILL);
    });
}

#[test]
fn a_caller_that_sends_no_namespace_is_an_error() {
    sandbox(|s| {
        busybox_root(s, "root");
        for link in ["jc-rootfs --net-fd 9 --upper tmpfs root", "jc-net --network none --net-fd 9"]
        {
            let tool = link.split(' ').next().unwrap();
            let chain = format!("{link} -- echo never");
            // The sender reports why it sends nothing.
            send(s, "", &chain).code(125).stdout("").stderr("");
            for (file, cause) in [
                ("/dev/null", "setns --net-fd 9: Invalid argument"),
                ("/proc/self/ns/uts", "setns --net-fd 9: Invalid argument"),
                ("/proc/self/ns/net", "--net-fd 9: the network of this process"),
            ] {
                send(s, file, &chain).code(125).stdout("").fails_as(tool, cause);
            }
            s.sh(&chain).run().code(125).fails_as(tool, "--net-fd 9: Bad file descriptor");
        }
        let refused = "--net-fd is for --network bridge or none, not host";
        let line = "jc-net --network host --net-fd 9 -- echo never";
        send(s, "", line).code(125).stdout("").fails_as("jc-net", refused);
    });
}

#[test]
fn no_two_options_have_one_descriptor() {
    sandbox(|s| {
        busybox_root(s, "root");
        let rootfs = "jc-rootfs --upper tmpfs";
        for (link, options) in [
            ("jc-unshare -p", &["--info-fd ", "--block-fd ", "--init-fd ", "--status-fd "][..]),
            ("jc-cgroup", &["--report ", "--status-fd "]),
            ("jc-net --network none", &["--status-fd ", "--net-fd "]),
            (
                rootfs,
                &["--gate mounts=", "--gate exec=", "--net-fd ", "--status-fd ", "--init-fd "],
            ),
            (rootfs, &["--net-fd ", "--status-fd ", "--init-fd ", "--trace-fd "]),
        ] {
            let root = if link == rootfs { "root" } else { "" };
            let first = |words: &'static str| words.split(' ').next().unwrap();
            for (n, one) in options.iter().enumerate() {
                for other in &options[n + 1..] {
                    let line = format!("{link} {one}8 {other}8 {root} -- echo never 8<>/dev/null");
                    let (one, other) = (first(one), first(other));
                    let refused = format!("{one} and {other}: both have descriptor 8");
                    s.sh(&line).run().code(125).stdout("").fails_as(first(link), &refused);
                }
            }
        }
    });
}

#[test]
fn jc_net_connects_the_namespace_to_a_bridge() {
    sandbox(|s| {
        let holder = s.sh("exec jc-unshare -n -- sh -c 'echo up; exec sleep 1000'");
        let mut holder = holder.spawn();
        holder.wait_for("up");
        let file = format!("/proc/{}/ns/net", holder.pid());
        let own = fs::read_link(&file).unwrap().display().to_string();
        let script = "readlink /proc/self/ns/net; ip -o -4 addr show eth0 | wc -l";
        let chain = format!("jc-net --net-fd 9 -- sh -c '{script}'");
        send(s, &file, &chain).code(0).stderr("").stdout(&format!("{own}\n1\n"));
        let refused = "--net-fd: the network namespace has an eth0";
        send(s, &file, &chain).code(125).stdout("").fails_as("jc-net", refused);
        holder.signal(Signal::KILL);
        holder.wait();
        s.sh("jc-net --gc").run().code(0);
    });
}

#[test]
fn the_supervisor_is_in_the_network_of_its_caller() {
    sandbox(|s| {
        busybox_root(s, "root");
        for network in ["none", "bridge"] {
            let line = format!(
                "jc-run -d --network {network} --name c --rootfs root -- sleep 1000 >/dev/null
                 pid() {{ jq -r --arg key jc.$1 '.annotations[$key]' /run/jc/*/state.json | sed 's/ .*//;q'; }}
                 cd /proc; readlink self/ns/net $(pid supervisor)/ns/net $(pid process)/ns/net"
            );
            let out = s.sh(&line).run().code(0).out();
            let [own, supervisor, payload] = out.lines().collect::<Vec<_>>()[..] else {
                panic!("{out}")
            };
            assert_eq!(own, supervisor, "{network}");
            assert_ne!(own, payload, "{network}");
            s.sh("jc-rm -f c").run().code(0);
        }
        s.sh("jc-list").run().code(0);
    });
}

#[test]
fn a_namespace_that_cannot_be_created_ends_the_chain() {
    sandbox(|s| {
        busybox_root(s, "root");
        let script = "echo 0 >/proc/sys/user/max_net_namespaces
            jc-run --network none --rootfs root -- echo never; echo $?; ls -A /run | grep jc || true";
        let ran = s.jc("jc-unshare").args(["-U", "-r", "-n", "--", "sh", "-c", script]).run();
        let ran = ran.shell_code(0).stdout("125\n");
        let errors = ran.err();
        assert!(
            errors.starts_with("jc-run: unshare: No space left on device\njc-run: hint: "),
            "{ran}"
        );
        assert_eq!(errors.lines().count(), 2, "{ran}");
    });
}

#[test]
fn a_caller_without_rights_over_its_own_network_lets_the_chain_create_the_namespace() {
    sandbox(|s| {
        busybox_root(s, "root");
        let script = "ip -o addr show lo | grep -c 127.0.0.1/8";
        let run = format!("jc-run --network none --rootfs root -- sh -c '{script}'");
        // Root of a user namespace, in the network of the host.
        let args = ["-U", "-r", "--", "sh", "-c", &run];
        s.jc("jc-unshare").args(args).run().code(0).stderr("").stdout("1\n");
        let lacks = |capability: &str| format!("setpriv --bounding-set=-{capability}");
        for (before, cause) in [
            (lacks("net_admin"), "set lo up: Operation not permitted"),
            (lacks("sys_admin"), "clone3: Operation not permitted"),
        ] {
            let ran = s.sh(&format!("{before} {run}")).run().code(125).stdout("");
            let ran = ran.fails_as("jc-unshare", cause);
            let errors = ran.err();
            assert_eq!(errors.lines().filter(|line| !line.contains("hint: ")).count(), 1, "{ran}");
        }
    });
}

#[test]
fn a_bundle_gets_its_namespace_before_its_hooks() {
    sandbox(|s| {
        let mut bundle = Bundle::new(
            s,
            "readlink /proc/self/ns/net; ip -o addr show lo | wc -l; ls /sys/class/net",
        );
        fs::write(
            s.path("hook"),
            "#!/bin/sh\npid=$(jq .pid); readlink /proc/$pid/ns/net >hooked\n",
        )
        .unwrap();
        s.sh("chmod +x hook").run().code(0);
        let hook = s.path("hook");
        bundle.change(|config| {
            config["hooks"] =
                json!({"createRuntime": [{"path": hook, "env": ["PATH=/usr/bin:/bin"]}]});
        });
        let out = bundle.run().code(0).stderr("").out();
        let own = fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
        let lines: Vec<&str> = out.lines().collect();
        assert_ne!(lines[0], own);
        assert_eq!(lines[2..], ["lo"], "{out}");
        bundle.assert_gone();
    });
}

#[test]
fn options_may_name_any_descriptor_of_the_caller() {
    sandbox(|s| {
        busybox_root(s, "root");
        fs::write(s.path("variables"), "A=seen\n").unwrap();
        for number in 3..10 {
            let line = format!(
                "exec jc-run --network none --rootfs root --env-file /dev/fd/{number} -- \
                 sh -c 'echo $A' {number}<variables"
            );
            s.sh(&line).run().code(0).stderr("").stdout("seen\n");
        }
    });
}
