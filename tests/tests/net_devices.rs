//! `jc-net --move-device`: interfaces that become those of another network namespace.

#![cfg(target_os = "linux")]

use jc_tests::{Sandbox, sandbox};
use rustix::process::Signal;

const TOOL: &str = "jc-net";

fn move_device(s: &Sandbox, device: &str, pid: &str) -> jc_tests::Ran {
    s.jc(TOOL).args(["--move-device", device, "--to", pid]).run()
}

#[test]
fn an_interface_takes_its_addresses_along_and_comes_up() {
    sandbox(|s| {
        let script = "echo $$ ready; exec sleep 1000";
        let mut other = s.jc("jc-unshare").args(["-n", "--", "sh", "-c", script]).spawn();
        other.wait_for("ready");
        let pid = other.stdout_so_far().split(' ').next().unwrap().to_owned();
        let make = "ip link add va type veth peer vb && ip link add vc type veth peer vd && \
            ip addr add 10.9.8.7/24 dev va && ip -6 addr add fd00::7/64 dev va nodad && \
            ip addr add 10.9.9.9/24 dev va valid_lft 1000 preferred_lft 1000 && ip link set va up";
        s.sh(make).run().code(0);
        move_device(s, "va=eth0", &pid).code(0).stdout("").stderr("");
        let inside = |line: &str| {
            let join = format!("{pid}:net");
            s.jc("jc-unshare").args(["--join", &join, "--", "sh", "-c", line]).run().code(0).out()
        };
        let shown = inside("ip -o addr show dev eth0; ip -o link show dev eth0");
        for text in ["10.9.8.7/24", "fd00::7/64", ",UP"] {
            assert!(shown.contains(text), "{text}: {shown}");
        }
        assert!(!shown.contains("10.9.9.9"), "{shown}");
        s.sh("ip link show va").run().code(1);
        // A name that is in use stays with its interface; a template finds a free one.
        move_device(s, "vb=eth0", &pid).code(125).fails_as(TOOL, "is there already");
        s.sh("ip link show vb").run().code(0);
        move_device(s, "vc=eth%d", &pid).code(0);
        assert!(inside("ip -o link show").contains("eth1"));
        move_device(s, "vd", &pid).code(0);
        assert!(inside("ip -o link show").contains("vd@"));
        move_device(s, "none", &pid).code(125).fails_as(TOOL, "No such device");
        move_device(s, "vb", "4194303").code(125).fails_as(TOOL, "4194303");
        for words in [
            &["--move-device", "vb"][..],
            &["--to", "1", "true"],
            &["--move-device", "a/b", "--to", "1"],
        ] {
            s.jc(TOOL).args(words).run().code(125);
        }
        other.signal(Signal::TERM);
        other.wait();
        s.sh("ip link del vb").run();
    });
}
