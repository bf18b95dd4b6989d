//! Other programs under the kills of `faults.rs`: figures for RELIABILITY.md, which `make test-faults` prints.

#![cfg(all(target_os = "linux", target_arch = "x86_64", feature = "peers"))]

use std::path::PathBuf;
use std::time::Duration;

use jc_tests::campaign::{chosen, note};
use jc_tests::faults::{Act, Fault, reap, run_programs};
use jc_tests::leaks::Snapshot;
use jc_tests::roots::busybox_root;
use jc_tests::{Sandbox, sandbox_for};
use nix::sys::signal::Signal;

/// How long all of them may take.
const LONG: Duration = Duration::from_secs(8 * 3600);

/// Other programs under the same kills: how many end, and leave nothing after a sweep of theirs.
#[test]
fn other_programs_under_kills() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        let bundle = r#"mkdir bundle && cd bundle && runc spec && jq '.process.terminal = false
            | .root.path = "/srv/root" | .process.args = ["true"]' config.json > c && mv c config.json"#;
        s.sh(bundle).run().code(0);
        let bwrap = "bwrap --unshare-all --die-with-parent --bind /srv/root / --proc /proc --dev /dev -- true";
        let podman = "podman --runtime runc run --rm --network none --log-driver none \
                      --rootfs /srv/root true";
        for (programs, line, sweep) in [
            (&["/usr/bin/bwrap"][..], bwrap, ":"),
            (&["/usr/sbin/runc"], "runc run -b bundle c", "runc delete -f c 2>/dev/null; :"),
            (&["/usr/bin/podman", "/usr/sbin/runc", "/usr/bin/conmon"], podman, "podman rm -fa"),
        ] {
            let found = s.sh(&format!("command -v {}", programs[0])).run().status().success();
            if found {
                peer(s, &programs.iter().map(PathBuf::from).collect::<Vec<_>>(), line, sweep);
            }
        }
    });
}

fn peer(s: &Sandbox, programs: &[PathBuf], line: &str, sweep: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    for _ in 0..2 {
        s.sh(line).run();
        s.sh(sweep).run();
    }
    let good = run_programs(s, programs, &words, None);
    note(&format!("{line}: {} {}", good.code, good.stderr));
    let calls: Vec<usize> = good.calls.iter().map(Vec::len).collect();
    let kill = |fault: &Fault| matches!(fault.act, Act::Send(Signal::SIGKILL));
    let faults: Vec<Fault> = chosen(&good.calls).into_iter().filter(kill).collect();
    let before = Snapshot::take();
    let (mut hung, mut kept, mut fired) = (0, 0, 0);
    for fault in &faults {
        let ended = run_programs(s, programs, &words, Some(*fault));
        fired += u32::from(ended.has_fired);
        hung += u32::from(!ended.hung.is_empty());
        s.sh(sweep).run();
        reap();
        let left = before.leaks();
        if !left.is_empty() {
            kept += 1;
            note(&format!("    {fault:?}: {}", left.join("; ")));
        }
        s.sh("rm -rf /run/runc/*; for g in $(find /sys/fs/cgroup -depth -type d -name c); do rmdir $g; done").run();
        reap();
    }
    s.sh("rm -rf /run/runc /run/containers /run/libpod /run/lock /run/netns").run();
    note(&format!("{line}: calls {calls:?}, {fired} kills, {hung} hung, {kept} left something"));
}
