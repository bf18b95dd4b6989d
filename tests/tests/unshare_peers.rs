//! jc-unshare compared with unshare(1), nsenter(1) and bwrap(1): a script inside has the same output.

#![cfg(target_os = "linux")]

use jc_tests::{Sandbox, require, sandbox};

const TOOL: &str = "jc-unshare";

/// A script that shows the namespaces and attributes of its process. Inode numbers only distinguish new namespaces
/// from old ones, which are in `$1`.
const SHOW: &str = r#"
    for kind in cgroup ipc mnt net pid time user uts; do
        case $1 in
        *"$(readlink /proc/self/ns/$kind)"*) echo "$kind old" ;;
        *) echo "$kind new" ;;
        esac
    done
    id
    hostname
    cat /proc/sys/kernel/domainname /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups
    grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|Sig[^Q]|Shd)' /proc/self/status
    cut -d' ' -f5 /proc/self/stat | grep -x 0
    ip -o link | cut -d: -f2
    cat /proc/self/timens_offsets
    ls /proc/self/fd
"#;

const NAMESPACES: &str = "readlink /proc/self/ns/*";

/// The output of a chain.
fn shown(s: &Sandbox, chain: &[&str]) -> String {
    let old = s.sh(NAMESPACES).run().code(0).out();
    s.cmd(chain[0]).args(&chain[1..]).args(["sh", "-c", SHOW, "sh", &old]).run().code(0).out()
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// The options of jc-unshare and the equal options of unshare(1), which forks only with an option.
const SAME: [(&str, &str); 24] = [
    ("", ""),
    ("-p", "-pf"),
    ("-u", "-u"),
    ("-i", "-i"),
    ("-n", "-n"),
    ("-C", "-C"),
    ("-T", "-Tf"),
    ("-m", "-m"),
    ("-U", "-U"),
    ("-pu", "-pfu"),
    ("-puinCTm", "-pfuinCTm"),
    ("-UpuinCTm", "-UpfuinCTm"),
    ("--pid --uts --ipc --net --cgroup --time --mount --user", "-UpfuinCTm"),
    ("--all", "-UpfuinCTm"),
    ("--all -r", "-UpfuinCTm -r"),
    ("--all --map-root", "-UpfuinCTm --map-root-user"),
    ("--all -c", "-UpfuinCTm -c"),
    ("-U --map-current", "-U --map-current-user"),
    ("-T --boottime 86400", "-Tf --boottime 86400"),
    ("-T --monotonic=-3 --boottime 7", "-Tf --monotonic -3 --boottime 7"),
    ("-U --setgroups deny", "-U --setgroups deny"),
    ("-p --kill-child KILL", "-pf --kill-child=KILL"),
    ("-pm --mount-proc", "-pfm --mount-proc"),
    ("-pm --mount-proc=/proc", "-pfm --mount-proc=/proc"),
];

#[test]
fn options_do_as_those_of_unshare_1() {
    sandbox(|s| {
        for (ours, theirs) in SAME {
            let here = shown(s, &[&[TOOL], &words(ours)[..], &["--"]].concat());
            let there = shown(s, &[&["unshare"], &words(theirs)[..], &["--"]].concat());
            assert_eq!(here, there, "jc-unshare {ours} / unshare {theirs}");
        }
    });
}

/// The shared and slave mounts. The kernel chooses the numbers of peer groups.
const PROPAGATION: &str =
    "cut -d' ' -f5,7- /proc/self/mountinfo | sed 's/ - .*//; s/:[0-9]*//g' | grep ^/srv";

#[test]
fn mounts_propagate_as_with_unshare_1() {
    sandbox(|s| {
        let tree = "mkdir base shared slave private
            mount -t tmpfs base base; mount --make-shared base
            mount --bind base shared
            mount --bind base slave; mount --make-slave slave
            mount --bind base private; mount --make-private private";
        s.sh(tree).run().code(0);
        let table = |tool, options: &[&str]| {
            let ran = s.cmd(tool).args(options).args(["--", "sh", "-c", PROPAGATION]).run();
            ran.code(0).out()
        };
        let unchanged = table(TOOL, &["-m", "--propagation", "unchanged"]);
        for how in ["private", "slave", "shared", "unchanged"] {
            let options = ["-m", "--propagation", how];
            let ours = table(TOOL, &options);
            assert_eq!(ours, table("unshare", &options), "{how}");
            assert_eq!(ours == unchanged, how == "unchanged", "{how}: {ours}");
        }
        assert_eq!(table(TOOL, &["-m"]), table("unshare", &["-m"]));

        // The purpose of propagation: the visibility of mounts in the other namespace.
        let script = "mount -t tmpfs x base/x; test -e base/x/mark && echo theirs";
        for (how, seen) in [("private", ""), ("slave", ""), ("shared", "ours\n")] {
            let check = format!(
                "mkdir -p base/x; {TOOL} -m --propagation {how} -- sh -c '{script}'
                 grep -q ' /srv/base/x ' /proc/self/mountinfo && echo ours; umount base/x 2>/dev/null"
            );
            s.sh(&check).run().stdout(seen);
        }
        s.sh("umount -R private slave shared base").run().code(0);
    });
}

/// Members of some namespaces and their view of each other.
#[test]
fn namespaces_are_joined_as_by_nsenter_1() {
    sandbox(|s| {
        let options = ["-puinCTm", "--mount-proc", "--hostname", "there", "--boottime", "1000"];
        for user in [
            &[][..],
            &["-U", "-r"],
            &["-U", "--map-users", "0:100000:1000", "--map-groups", "0:100000:1000"],
        ] {
            let payload = ["--", "sh", "-c", "echo ready; exec sleep 1000"];
            let mut there = s.jc(TOOL).args(user).args(options).args(payload).spawn();
            there.wait_for("ready");
            let pid = s.sh("pidof sleep").run().code(0).out().trim().to_owned();
            let inside = |chain: &[&str]| shown(s, chain);
            assert_eq!(
                inside(&[TOOL, "--join", &pid, "--"]),
                inside(&["nsenter", "-a", "-t", &pid, "--"]),
            );
            for (kind, letters) in [
                ("uts", "-u"),
                ("ipc", "-i"),
                ("net", "-n"),
                ("cgroup", "-C"),
                ("time", "-T"),
                ("pid", "-p"),
                ("user", "-U"),
                ("uts,pid,mnt", "-u -p -m"),
                // Without the PID namespace, its /proc shows no process.
                ("mnt,pid", "-m -p"),
                ("net,user", "-U -n"),
            ] {
                if kind.contains("user") && user.is_empty() {
                    continue;
                }
                let theirs = [&["nsenter"], &words(letters)[..], &["-t", &pid, "--"]].concat();
                let theirs = inside(&theirs);
                let spec = format!("{pid}:{kind}");
                assert_eq!(inside(&[TOOL, "--join", &spec, "--"]), theirs, "{kind}");
                if !kind.contains(',') {
                    let spec = format!("{kind}=/proc/{pid}/ns/{kind}");
                    assert_eq!(inside(&[TOOL, "--join-ns", &spec, "--"]), theirs, "{kind}");
                }
            }
            // Some namespaces of the process, and a new one.
            let mixed = inside(&[TOOL, "--join", &format!("{pid}:net,uts"), "-p", "-i", "--"]);
            let theirs = ["nsenter", "-n", "-u", "-t", &pid, "unshare", "-pif", "--"];
            assert_eq!(mixed, inside(&theirs));
            there.signal(rustix::process::Signal::TERM);
            there.wait().code(143);
        }
    });
}

#[test]
fn namespaces_of_the_caller_and_without_processes_are_joined() {
    sandbox(|s| {
        s.sh("exec jc-unshare --join $$ -- sh -c 'echo $PPID $0'").run().code(0).stdout("1 sh\n");
        let own = "exec jc-unshare --join-ns user=/proc/self/ns/user -- true";
        s.sh(own).run().code(0);
        let kept =
            "touch uts; unshare --uts=uts hostname kept; jc-unshare --join-ns uts=uts hostname
            umount uts";
        s.sh(kept).run().code(0).stdout("kept\n");
        let ran = s.jc(TOOL).args(["--join", "4000000", "true"]).run();
        ran.code(125).stdout("").fails_as(TOOL, "join 4000000: no such process");
        let ran = s.jc(TOOL).args(["--join-ns", "net=/proc/self/ns/uts", "true"]).run();
        ran.code(125).stdout("").fails_as(TOOL, "setns /proc/self/ns/uts: Invalid argument");
        let ran = s.jc(TOOL).args(["--join-ns", "net=/nonexistent", "true"]).run();
        ran.code(125).stdout("").fails_as(TOOL, "open /nonexistent: No such file or directory");
        let ran = s.jc(TOOL).args(["--join-ns", "nets=/x", "true"]).run();
        ran.code(125).stdout("").fails_as(TOOL, "nets");
    });
}

/// The inode numbers in the report are those of the namespaces of the program, as with bwrap.
#[test]
fn a_manager_gets_the_same_report_as_from_bwrap() {
    sandbox(|s| {
        require(s, "bwrap", "bubblewrap");
        require(s, "jq", "jq");
        // The manager reads the report and releases the program, whose output confirms the report.
        let manager = |start: &str| {
            let script = format!(
                "mkfifo info block 2>/dev/null
                 {start} -- sh -c '{NAMESPACES}' >ns 3>info 4<>block &
                 cat info >told; pid=$(jq '.\"child-pid\"' told)
                 test -s ns && echo 'not blocked'
                 test -e /proc/$pid/ns/uts || echo \"no process $pid\"
                 printf x >block; wait; cat told; sort -u ns; rm info block ns"
            );
            s.cmd("bash").args(["-c", &script]).run().code(0).out()
        };
        let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "uts"];
        let theirs = manager(
            "bwrap --bind / / --proc /proc --unshare-pid --unshare-uts --unshare-ipc \
             --unshare-net --unshare-cgroup --info-fd 3 --block-fd 4",
        );
        let without = manager("jc-unshare -puinCm --mount-proc --info-fd 3 --block-fd 4");
        let with_init = manager("jc-unshare -puinCm --mount-proc --init --info-fd 3 --block-fd 4");
        let in_place = manager("jc-unshare -uinCm --info-fd 3 --block-fd 4");
        for told in [theirs, without, with_init, in_place] {
            let (json, links) = told.split_once("}\n").unwrap_or_else(|| panic!("{told}"));
            let json: serde_json::Value = serde_json::from_str(&format!("{json}}}")).unwrap();
            assert!(json["child-pid"].as_u64().is_some(), "{told}");
            for kind in kinds {
                let number = &json[format!("{kind}-namespace")];
                assert!(links.contains(&format!("{kind}:[{number}]\n")), "{kind}: {told}");
            }
        }
    });
}
