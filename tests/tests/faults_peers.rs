//! Other programs under the kills of `faults.rs`: figures for RELIABILITY.md, which `make test-faults` prints.
//!
//! `JC_PEERS_ROOT` is the root directory with the programs. Without it the programs of the host are used. A program
//! with many calls gets `MOST` kills, at evenly spaced calls.

#![cfg(all(target_os = "linux", target_arch = "x86_64", feature = "peers"))]

use std::env;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use jc_tests::campaign::note;
use jc_tests::faults::{Act, Fault, reap, run_programs};
use jc_tests::leaks::Snapshot;
use jc_tests::roots::busybox_root;
use jc_tests::{Sandbox, sandbox_for};
use nix::sys::signal::Signal;

/// The time limit of all programs together.
const LONG: Duration = Duration::from_secs(8 * 3600);

/// The time limit of one program, after which it counts as hung.
const LIMIT: Duration = Duration::from_secs(5);

/// The most kills of a program.
const MOST: usize = 300;

/// Executes a program in another root, with the /proc, /sys, /dev, /run, /srv and /tmp of this mount namespace. crun
/// accepts no second hierarchy beside version 1 of cgroups.
const ENTER: &str = r#"#!/bin/sh
set -e
root=$1; shift
if [ "$root" != / ]; then
    mount --bind "$root" "$root"
    for dir in proc sys dev run srv tmp; do mount --rbind /$dir "$root/$dir"; done
    cd "$root" && pivot_root . mnt && cd / && umount -l /mnt
    mount -t tmpfs tmpfs /var/tmp
    mkdir -p /srv/containers && mount --bind /srv/containers /var/lib/containers
fi
umount /sys/fs/cgroup/unified 2>/dev/null || :
exec "$@"
"#;

/// The control groups that the programs have made.
const GROUPS: &str = "find /sys/fs/cgroup -depth -type d ( -name '*jcpeer*' -o -name 'libpod-*' )";

struct Peer {
    programs: &'static [&'static str],
    line: &'static str,
    /// The command that an engine, or an administrator, runs after a crash.
    sweep: &'static str,
}

const PEERS: [Peer; 4] = [
    Peer {
        programs: &["bwrap"],
        line: "bwrap --unshare-all --die-with-parent --bind /srv/root / --proc /proc --dev /dev -- true",
        sweep: ":",
    },
    Peer {
        programs: &["crun"],
        line: "crun run -b /srv/bundle jcpeer",
        sweep: "crun delete -f jcpeer",
    },
    Peer {
        programs: &["runc"],
        line: "runc run -b /srv/bundle jcpeer",
        sweep: "runc delete -f jcpeer",
    },
    Peer {
        programs: &["podman", "conmon", "crun"],
        line: "podman --runtime crun run --rm --name jcpeer --network none --log-driver none \
               --rootfs /srv/root true",
        sweep: "podman rm -fa -t 0",
    },
];

/// The system of the programs.
struct System(String);

impl System {
    fn words<'a>(&'a self, line: &'a str) -> Vec<&'a str> {
        let enter = ["unshare", "-m", "sh", "/srv/enter", &self.0];
        enter.into_iter().chain(line.split_whitespace()).collect()
    }

    fn shell(&self, s: &Sandbox, line: &str) -> String {
        let line = format!("{line}; :");
        let words = [&self.words("sh -c")[..], &[&line]].concat();
        s.cmd(words[0]).args(&words[1..]).run().out()
    }

    fn program(&self, name: &str) -> Option<PathBuf> {
        let places = ["usr/bin", "usr/sbin"];
        places.iter().find_map(|place| fs::canonicalize(format!("{}/{place}/{name}", self.0)).ok())
    }
}

/// Counts the kills after which other programs end, and leave no objects after their own sweep.
#[test]
fn other_programs_under_kills() {
    sandbox_for(LONG, |s| {
        let system = System(env::var("JC_PEERS_ROOT").unwrap_or_else(|_| "/".to_owned()));
        fs::write(s.path("enter"), ENTER).unwrap();
        busybox_root(s, "root");
        let bundle = "cd /srv && mkdir bundle && cd bundle && (crun spec || runc spec)";
        system.shell(s, bundle);
        let config = "cd bundle && jq '.process.terminal = false | .root.path = \"/srv/root\"
            | .process.args = [\"true\"]' config.json > c && mv c config.json";
        s.sh(config).run().code(0);
        for peer in &PEERS {
            let programs: Option<Vec<_>> =
                peer.programs.iter().map(|name| system.program(name)).collect();
            if let Some(programs) = programs {
                measure(s, &system, peer, &programs);
            }
        }
        s.sh("rm -rf /run/* /tmp/*").run();
    });
}

fn measure(s: &Sandbox, system: &System, peer: &Peer, programs: &[PathBuf]) {
    let version = system.shell(s, &format!("{} --version | head -n 1", peer.programs[0]));
    let words = system.words(peer.line);
    // The first start makes directories and databases that stay.
    for _ in 0..2 {
        run_programs(s, programs, &words, None, LIMIT);
        system.shell(s, peer.sweep);
    }
    let mut before = Snapshot::take();
    let good = run_programs(s, programs, &words, None, LIMIT);
    system.shell(s, peer.sweep);
    note(&format!("{version}{}: {} {}", peer.line, good.code, good.stderr));
    note(&format!("    undisturbed: {}", left(s, &before).join("; ")));
    let calls: Vec<usize> = good.calls.iter().map(Vec::len).collect();
    let act = Act::Send(Signal::SIGKILL);
    let all = calls.iter().enumerate();
    let all =
        all.flat_map(|(process, calls)| (0..*calls).map(move |call| Fault { process, call, act }));
    let step = calls.iter().sum::<usize>().div_ceil(MOST);
    let (mut hung, mut kept, mut fired) = (0, 0, 0);
    for fault in all.step_by(step) {
        let ended = run_programs(s, programs, &words, Some(fault), LIMIT);
        fired += u32::from(ended.has_fired);
        hung += u32::from(!ended.hung.is_empty());
        system.shell(s, peer.sweep);
        reap();
        let found = left(s, &before);
        if !found.is_empty() {
            kept += 1;
            note(&format!("    {fault:?}: {}", found.join("; ")));
            s.sh("rm -rf /run/* /tmp/* /srv/containers; mkdir /run/mount").run();
            run_programs(s, programs, &words, None, LIMIT);
            system.shell(s, peer.sweep);
            left(s, &before);
            before = Snapshot::take();
        }
    }
    note(&format!(
        "{}: calls {calls:?}, {fired} kills, {hung} hung, {kept} left something",
        peer.line
    ));
}

/// Lists the objects that the program has left, and removes the control groups among them.
fn left(s: &Sandbox, before: &Snapshot) -> Vec<String> {
    let mut left = before.leaks();
    reap();
    let find = GROUPS.replace('(', "\\(").replace(')', "\\)");
    let groups = s.sh(&find).run().out();
    left.extend(groups.lines().map(|group| format!("cgroup {group}")));
    s.sh(&format!("{find} -exec rmdir {{}} +")).run();
    left
}
