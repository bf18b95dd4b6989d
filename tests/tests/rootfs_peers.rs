//! jc-rootfs compared with runc, crun and bubblewrap: the environment of a payload.

#![cfg(target_os = "linux")]

use std::collections::{BTreeMap, BTreeSet};

use jc_tests::{Ann, Cmd, Sandbox, require, sandbox};

mod rootfs_support;
use rootfs_support::{by_runtime, root};

/// The namespaces of a runtime's default configuration, without the network.
const CHAIN: [&str; 3] = ["-puiC", "--", "jc-rootfs"];

fn ours(s: &Sandbox, options: &[&str], script: &str) -> Cmd {
    let root = ["root", "--", "sh", "-c", script];
    s.jc("jc-unshare").args(CHAIN).args(options).args(root)
}

/// A jq(1) filter for a runtime's configuration without restrictions and with the network of the host.
const OPEN: &str = ".root.readonly = false |
    .linux.namespaces |= map(select(.type != \"network\")) |";
/// A filter for a configuration without masks.
const UNMASKED: &str = "del(.linux.maskedPaths) | del(.linux.readonlyPaths)";

fn theirs(s: &Sandbox, runtime: &str, filter: &str, script: &str) -> String {
    by_runtime(s, runtime, &format!("{OPEN} {filter}"), script).run().code(0).out()
}

fn prepare(s: &Sandbox) {
    require(s, "runc", "runc");
    require(s, "crun", "crun");
    require(s, "bwrap", "bubblewrap");
    root(s, "root");
    s.sh("mkdir -p root/proc root/dev root/sys").run().code(0);
}

/// A mount: its type, its restrictions, and the options of its file system.
type Mount = (String, BTreeSet<String>, BTreeSet<String>);

/// The mounts by mount point. The uppermost one counts.
fn mounts(mountinfo: &str) -> BTreeMap<String, Mount> {
    let words = |text: &str| text.split(',').map(str::to_owned).collect::<BTreeSet<_>>();
    let parse = |line: &str| {
        let (mount, system) = line.split_once(" - ")?;
        let mount: Vec<&str> = mount.split(' ').collect();
        let system: Vec<&str> = system.split(' ').collect();
        // A private mount has no optional fields.
        assert_eq!(mount.len(), 6, "it propagates: {line}");
        let mut forbids = words(mount[5]);
        forbids.retain(|word| ["ro", "nosuid", "nodev", "noexec"].contains(&word.as_str()));
        let mut system_options = words(system[2]);
        // Either the mount or the whole file system is read-only.
        system_options.retain(|word| !["ro", "rw"].contains(&word.as_str()));
        Some((mount[4].to_owned(), (system[0].to_owned(), forbids, system_options)))
    };
    mountinfo.lines().filter_map(parse).collect()
}

const MOUNTINFO: &str = "cat /proc/self/mountinfo";

/// The mounts equal those of a runtime's default configuration, and allow nothing more.
#[test]
fn mounts_are_those_of_runtimes() {
    sandbox(|s| {
        prepare(s);
        for (options, filter) in [(&[][..], UNMASKED), (&["--mask", "default"], ".")] {
            let here = mounts(&ours(s, options, MOUNTINFO).run().code(0).out());
            for runtime in ["runc", "crun"] {
                let there = mounts(&theirs(s, runtime, filter, MOUNTINFO));
                // crun of Debian 12 has an older list.
                for (point, (kind, forbids, system)) in &there {
                    let Some((our_kind, we_forbid, our_system)) = here.get(point) else {
                        panic!("{runtime} {options:?}: no {point} among {here:#?}");
                    };
                    // Masked files are covered by /dev/null, which is that of the host or of the container.
                    let null = [our_kind, kind] == ["devtmpfs", "tmpfs"];
                    assert!(our_kind == kind || null, "{runtime} {point} {kind} {our_kind}");
                    let mut forbids = forbids.clone();
                    if null {
                        forbids.remove("nodev");
                    }
                    assert!(we_forbid.is_superset(&forbids), "{point}: {we_forbid:?} {forbids:?}");
                    if ["/dev/pts", "/dev/shm", "/proc", "/sys", "/dev/mqueue"].contains(&&**point)
                    {
                        assert_eq!(our_system, system, "{runtime} {point}");
                    }
                }
                let more: Vec<&String> =
                    here.keys().filter(|point| !there.contains_key(*point)).collect();
                let known = |point: &str| {
                    // Docker's newer masks, and directories that crun mounts as one.
                    ["/proc/interrupts", "/sys/devices/virtual/powercap"].contains(&point)
                        || point.contains("/thermal_throttle")
                        // crun 1.8 lacks this mount, see `by_runtime`.
                        || *point == *"/sys/fs/cgroup/unified"
                };
                assert!(more.iter().all(|point| known(point)), "{runtime} {options:?}: {more:?}");
            }
        }
    });
}

/// Names, links, types, numbers, permissions and owners in /dev.
const DEV: &str = "cd /dev && stat -c '%N %F %t:%T %a %u:%g' * | sort";

#[test]
fn devices_are_those_of_runtimes_and_bubblewrap() {
    sandbox(|s| {
        prepare(s);
        let lines = |text: String| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
        let here = lines(ours(s, &[], DEV).run().code(0).out());
        let bwrap =
            ["--bind", "root", "/", "--proc", "/proc", "--dev", "/dev", "--", "sh", "-c", DEV];
        let peers = [
            ("runc", theirs(s, "runc", UNMASKED, DEV)),
            ("crun", theirs(s, "crun", UNMASKED, DEV)),
            ("bwrap", s.cmd("bwrap").args(bwrap).run().code(0).out()),
        ];
        let shm = "shm directory 0:0 1777 0:0";
        let queues = "mqueue directory 0:0 1777 0:0";
        for (peer, there) in peers {
            let there = lines(there);
            // No link leads to the memory of the kernel.
            let more = there.difference(&here).filter(|line| !line.contains("/proc/kcore"));
            let less = here.difference(&there);
            let found = (more.map(|l| &**l).collect(), less.map(|l| &**l).collect());
            let known: (Vec<&str>, Vec<&str>) = match peer {
                // The devpts of bwrap is for one user, and bwrap has no message queues.
                "bwrap" => (vec!["shm directory 0:0 755 0:0"], vec![queues, shm]),
                _ => (vec![], vec![]),
            };
            assert_eq!(found, known, "{peer}");
        }
    });
}

#[test]
fn limits_environment_and_descriptors_are_those_of_runtimes() {
    sandbox(|s| {
        prepare(s);
        let script = "cat /proc/$$/limits; tr '\\0' '\\n' </proc/$$/environ | sort
            cat /proc/$$/oom_score_adj; umask; pwd; hostname >/dev/null; cut -d' ' -f5-8 /proc/$$/stat >/dev/null
            grep -E '^(Umask|SigBlk|SigCgt|Seccomp|NoNewPrivs|Cap[A-Z][a-z]*|Uid|Gid|Groups):' /proc/self/status";
        let options = [
            "--clear-env",
            "-e",
            "PATH=/bin:/usr/bin",
            "-e",
            "TERM=xterm",
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=77:99",
            "--ulimit",
            "stack=1048576:16777216",
            "--ulimit",
            "core=0",
            "--cap-drop",
            "ALL",
            "--cap-add",
            "AUDIT_WRITE",
            "--cap-add",
            "KILL",
            "--cap-add",
            "NET_BIND_SERVICE",
            "--no-new-privs",
        ];
        let here = ours(s, &options, script).run().code(0).out();
        let filter = "UNMASKED | .process.env = [\"PATH=/bin:/usr/bin\", \"TERM=xterm\"] |
            .process.capabilities.ambient = [] | .process.capabilities.inheritable = [] |
            .process.rlimits = [{type: \"RLIMIT_NOFILE\", soft: 1024, hard: 1024},
                {type: \"RLIMIT_NPROC\", soft: 77, hard: 99}, {type: \"RLIMIT_CORE\", soft: 0, hard: 0},
                {type: \"RLIMIT_STACK\", soft: 1048576, hard: 16777216}]"
            .replace("UNMASKED", UNMASKED);
        let descriptors = "ls /proc/$$/fd; :";
        ours(s, &options, descriptors).run().code(0).stdout("0\n1\n2\n");
        for runtime in ["runc", "crun"] {
            // A runtime has one more descriptor.
            assert!(theirs(s, runtime, &filter, descriptors).starts_with("0\n1\n2\n"), "{runtime}");
            let there = theirs(s, runtime, &filter, script);
            let differ = here.lines().zip(there.lines()).find(|(a, b)| a != b);
            assert_eq!(differ, None, "{runtime}");
            assert_eq!(here.len(), there.len(), "{runtime}");
        }
    });
}

/// The sandbox of an ordinary user.
#[test]
fn privileges_are_those_that_bubblewrap_gives() {
    sandbox(|s| {
        prepare(s);
        let ann = Ann::new(s);
        ann.sh("cp -a /srv/root own").run().code(0);
        let script =
            "grep -E \"^(Uid|Gid|Groups|Cap[A-Za-z]*|NoNewPrivs|Seccomp):\" /proc/self/status
            cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; pwd; echo $$
            env | grep -v -e ^_= -e ^OLDPWD= -e ^JC_ | sort";
        for (jc, bwrap) in [
            ("--cap-drop ALL", ""),
            ("", "--cap-add ALL"),
            (
                "--cap-drop ALL --cap-add CHOWN --cap-add KILL",
                "--cap-add CAP_CHOWN --cap-add CAP_KILL",
            ),
        ] {
            let jc = format!(
                "exec jc-unshare -U --map-root -- jc-unshare -pui -- jc-rootfs --no-new-privs {jc} own -- sh -c '{script}'"
            );
            let bwrap = format!(
                "exec bwrap --unshare-user --uid 0 --gid 0 --unshare-pid --as-pid-1 --unshare-uts --unshare-ipc {bwrap} \
                 --bind own / --proc /proc --dev /dev --chdir / -- sh -c '{script}'"
            );
            let (here, there) =
                (ann.sh(&jc).run().code(0).out(), ann.sh(&bwrap).run().code(0).out());
            // bwrap passes on inheritable and ambient capabilities, and the open descriptors of the caller.
            let comparable = |out: &str| -> Vec<String> {
                let lines =
                    out.lines().filter(|l| !l.starts_with("CapInh") && !l.starts_with("CapAmb"));
                lines.map(str::to_owned).collect()
            };
            assert_eq!(comparable(&here), comparable(&there), "{jc} / {bwrap}");
            let none = "CapInh:\t0000000000000000\n";
            assert!(here.contains(none), "{here}");
        }
    });
}
