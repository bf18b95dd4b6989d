//! jc-trace: the recorder as a link, and what its reports have.

#![cfg(target_os = "linux")]

mod trace_support;

use std::fs;

use jc_tests::internet::{CALLERS, PYTHON, lines};
use jc_tests::roots::busybox_root;
use jc_tests::{keeps_the_contract, require, sandbox};
use serde_json::{Value, json};
use trace_support::{events, file, gaps, has_call, traced};

const TOOL: &str = "jc-trace";

keeps_the_contract!(bare, ["jc-trace", "--report", "/srv/t"], "jc-trace");
keeps_the_contract!(
    in_front_of_a_chain,
    [
        "jc-trace",
        "--report",
        "/srv/t",
        "--trace-fd",
        "9",
        "--",
        "jc-rootfs",
        "--trace-fd",
        "9",
        "ROOT"
    ],
    "jc-rootfs"
);

#[test]
fn a_report_has_each_different_event_once_and_in_order() {
    sandbox(|s| {
        s.sh("mkdir d && echo text >d/f && ln -s d/f link && chmod 777 . && ip link set lo up")
            .run()
            .code(0);
        let script = "cat link link >out; cd d; cat f ./f; ls . >/dev/null; cat /none 2>/dev/null; \
            mv ../out ../moved; rm ../moved; exit 3";
        for caller in CALLERS {
            let line = format!("{caller} {TOOL} --report /srv/t -- sh -c '{script}'");
            let (ran, report) = traced(s, &line);
            ran.code(3).stdout("text\ntext\n");
            assert_eq!((&report[0]["argv"][0], &report[0]["cwd"]), (&json!("sh"), &json!("/srv")));
            let programs = events(&report, "program");
            let cat =
                programs.iter().find(|program| program["argv"] == json!(["cat", "link", "link"]));
            let cat = cat.unwrap_or_else(|| panic!("{programs:?}"));
            assert_eq!((&cat["count"], &cat["exit"]), (&json!(1), &json!([0])));
            let link = file(&report, "/srv/link");
            assert_eq!((&link["real"], &link["exists"]), (&json!("/srv/d/f"), &json!(true)));
            assert_eq!((&link["uses"], &link["flags"]), (&json!(["open"]), &json!(["read"])));
            assert_eq!(file(&report, "/srv/d")["uses"], json!(["enter", "list", "open", "stat"]));
            assert_eq!(file(&report, "/none")["exists"], false);
            let moved = file(&report, "/srv/d/../moved");
            assert_eq!(moved["uses"], json!(["remove", "rename", "stat"]));
            assert_eq!(file(&report, "/srv/out")["flags"], json!(["create", "truncate", "write"]));
            let loader = report.iter().any(|event| {
                event["uses"] == json!(["execute"])
                    && event["path"].as_str().unwrap().contains("/ld-")
            });
            assert!(loader, "{report:#?}");
            assert!(has_call(&report, "execve", None) && !has_call(&report, "read", None));
            assert_eq!(report.last().unwrap(), &json!({"event":"end","code":3,"signal":null}));
            assert_eq!(gaps(&report), [""; 0]);
            let keys: Vec<&str> =
                report.iter().map(|event| event["event"].as_str().unwrap()).collect();
            let mut kinds = keys.clone();
            kinds.dedup();
            assert_eq!(kinds, ["trace", "program", "call", "file", "end"]);
        }
    });
}

#[test]
fn the_second_report_of_the_same_run_is_the_same() {
    sandbox(|s| {
        s.sh("mkdir d && for i in $(seq 20); do echo $i >d/$i; done").run().code(0);
        let line = format!("{TOOL} --report t -- sh -c 'for i in d/*; do cat $i & done; wait'");
        s.sh(&format!("{line} && mv t one && {line} && cmp one t")).run().code(0);
    });
}

#[test]
fn values_addresses_and_ends_by_signals_are_recorded() {
    sandbox(|s| {
        let program = "import socket, ctypes, fcntl, os
libc = ctypes.CDLL(None)
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
    s = socket.socket(family)
    try: s.connect({socket.AF_INET: ('127.0.0.9', 99), socket.AF_INET6: ('::9', 98), socket.AF_UNIX: '/srv/none'}[family])
    except OSError: pass
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
try: u.sendto(b'x', ('127.0.0.8', 97))
except OSError: pass
b = socket.socket(); b.bind(('127.0.0.1', 4321))
libc.prctl(40, 0, 0, 0, 0)
libc.syscall(135, 0xffffffff)
os.kill(os.getpid(), 9)";
        fs::write("/srv/p.py", program).unwrap();
        s.sh("ip link set lo up").run().code(0);
        let (ran, report) = traced(s, &format!("{TOOL} --report t -- {PYTHON} p.py"));
        ran.shell_code(137);
        for value in [1, 2, 10] {
            assert!(has_call(&report, "socket", Some(value)), "{value}");
        }
        assert!(
            has_call(&report, "prctl", Some(40))
                && has_call(&report, "personality", Some(0xFFFF_FFFF))
        );
        let address = |event: &Value| {
            (
                event["address"].as_str().unwrap().to_owned(),
                event["port"].as_u64(),
                event["type"].clone(),
            )
        };
        let connects: Vec<_> = events(&report, "connect").iter().map(address).collect();
        for expected in [
            ("127.0.0.9".to_owned(), Some(99), json!("stream")),
            ("::9".to_owned(), Some(98), json!("stream")),
            ("/srv/none".to_owned(), None, json!("stream")),
            ("127.0.0.8".to_owned(), Some(97), json!("dgram")),
        ] {
            assert!(connects.contains(&expected), "{expected:?} {connects:?}");
        }
        let binds: Vec<_> = events(&report, "bind").iter().map(address).collect();
        assert_eq!(binds, [("127.0.0.1".to_owned(), Some(4321), json!("stream"))]);
        assert_eq!(file(&report, "/srv/none")["uses"], json!(["connect"]));
        assert_eq!(report.last().unwrap(), &json!({"event":"end","code":137,"signal":9}));
    });
}

#[test]
fn with_all_each_event_is_a_line_with_its_thread_and_time() {
    sandbox(|s| {
        let line = format!(
            "{TOOL} --report t --all -- sh -c 'cat /etc/hostname /etc/hostname >/dev/null'"
        );
        s.sh(&line).run().code(0);
        let report = lines("/srv/t");
        let opens = report.iter().filter(|event| event["path"] == "/etc/hostname");
        let opens: Vec<&Value> = opens.filter(|event| event["uses"] == json!(["open"])).collect();
        assert_eq!(opens.len(), 2, "{report:#?}");
        assert!(opens.iter().all(|open| open["thread"].is_u64() && open["time"].is_f64()));
        let last: Vec<&Value> = report.iter().rev().take(2).map(|event| &event["event"]).collect();
        assert_eq!(last, [&json!("end"), &json!("trace")]);
        assert_eq!(events(&report, "exit").len(), 2);
    });
}

#[test]
fn every_call_is_recorded_on_demand() {
    sandbox(|s| {
        let (ran, report) =
            traced(s, &format!("{TOOL} --report t --calls -- readlink /proc/self/exe"));
        ran.code(0);
        for name in ["read", "mmap", "close", "brk", "readlink", "exit_group"] {
            assert!(has_call(&report, name, None), "{name}");
        }
        assert_eq!(file(&report, "/proc/self/exe")["uses"], json!(["link"]));
        let (_, report) =
            traced(s, &format!("{TOOL} --report t --links -- readlink /proc/self/exe"));
        assert_eq!(file(&report, "/proc/self/exe")["uses"], json!(["link"]));
        assert_eq!((&report[0]["calls"], &report[0]["links"]), (&json!(false), &json!(true)));
    });
}

#[test]
fn a_container_is_recorded_from_its_program_on() {
    sandbox(|s| {
        busybox_root(s, "root");
        let run = "jc-run --trace t --rootfs root";
        for options in [
            "--network none",
            "--network none --init",
            "--network none -m 64M",
            "--network none -u 1 --cap-drop ALL",
            "--network none --security-opt no-new-privileges=false",
            "--network none --pid host",
            "--allow 192.0.2.1:80",
            "--privileged --network none",
            "--network none --read-only --tmpfs /x --trace-calls",
        ] {
            let (ran, report) =
                traced(s, &format!("{run} {options} -- sh -c 'cat /etc/hostname; exit 4'"));
            assert_eq!((ran.status().code(), ran.err().as_str()), (Some(4), ""), "{options} {ran}");
            let programs = events(&report, "program");
            let has = |name: &str| programs.iter().any(|program| program["argv"][0] == name);
            assert_eq!((programs.len(), has("sh"), has("cat")), (2, true, true), "{options}");
            assert_eq!(file(&report, "/etc/hostname")["exists"], true, "{options}");
            let outside = report.iter().any(|event| event.to_string().contains("/srv/root"));
            assert!(!outside, "{options} {report:#?}");
            assert_eq!(gaps(&report), [""; 0], "{options}");
            let usage = events(&report, "usage");
            let has_group = options.contains("-m") || options.contains("--pid");
            assert_eq!(usage.len(), usize::from(has_group), "{options}");
        }
        s.wait_for_no_process();
    });
}

#[test]
fn a_container_of_an_ordinary_user_is_recorded() {
    sandbox(|s| {
        busybox_root(s, "root");
        s.sh("chmod 1777 . && mkdir -m 700 state && chown -R 65534:65534 state root").run().code(0);
        let run = "env JC_STATE_DIR=/srv/state jc-run --trace t --network none --rootfs root -- cat /etc/hostname";
        let (ran, report) = traced(s, &format!("{} {run}", CALLERS[1]));
        ran.code(0).stderr("");
        assert_eq!(file(&report, "/etc/hostname")["exists"], true);
        assert_eq!(gaps(&report), [""; 0]);
    });
}

/// A container of podman with its default restrictions: no CAP_SYS_ADMIN, and a seccomp profile.
#[test]
fn inside_podman_a_program_is_recorded() {
    sandbox(|s| {
        require(s, "podman", "podman");
        require(s, "runc", "runc");
        busybox_root(s, "root");
        s.sh("mkdir root/programs && cp $(command -v jc-trace) root/programs/").run().code(0);
        let podman = "podman --root /srv/storage --runroot /run/storage --storage-driver vfs --cgroup-manager cgroupfs \
            --runtime runc run --rm --network none -e PATH=/programs:/bin -v /srv:/out --rootfs /srv/root";
        for user in ["", "-u 33"] {
            let podman = podman.replace(" --rm", &format!(" --rm {user}"));
            s.sh("chmod 777 .").run().code(0);
            let line =
                format!("{podman} {TOOL} --report /out/t -- sh -c 'cat /etc/hostname; exit 4'");
            let (ran, report) = traced(s, &line);
            assert_eq!((ran.status().code(), ran.err().as_str()), (Some(4), ""), "{user} {ran}");
            assert_eq!(file(&report, "/etc/hostname")["exists"], true);
            assert_eq!((events(&report, "program").len(), gaps(&report)), (2, vec![]));
        }
        s.sh("rm -rf /run/libpod /run/runc /run/storage /run/containers /run/crun").run().code(0);
        s.wait_for_no_process();
    });
}

#[test]
fn what_a_report_lacks_is_in_the_report() {
    sandbox(|s| {
        let program = "import ctypes
libc = ctypes.CDLL(None, use_errno=True)
libc.open(ctypes.c_void_p(8), 0)
libc.open(b'x' * 5000, 0)
libc.syscall(425, 1, 0)
libc.syscall(5000)";
        fs::write("/srv/p.py", program).unwrap();
        let (ran, report) = traced(s, &format!("{TOOL} --report t -- {PYTHON} p.py"));
        ran.code(0);
        assert_eq!(gaps(&report), ["io_uring", "unreadable-memory"]);
        assert!(has_call(&report, "#5000", None));
        let inner = format!("{TOOL} --report inner -- true");
        let (ran, report) = traced(s, &format!("{TOOL} --report t -- {inner}"));
        ran.code(125).fails_as(TOOL, "busy");
        assert_eq!(gaps(&report), ["listener-refused"]);
    });
}

#[test]
fn the_root_of_a_chroot_is_a_part_of_its_paths() {
    sandbox(|s| {
        busybox_root(s, "root");
        let (ran, report) = traced(s, &format!("{TOOL} --report t -- chroot root cat /etc/passwd"));
        ran.code(0);
        assert_eq!(file(&report, "/srv/root/etc/passwd")["exists"], true);
    });
}

#[test]
fn a_line_that_cannot_hold_is_refused() {
    sandbox(|s| {
        busybox_root(s, "root");
        s.sh("mkdir directory && ln -s x link && echo text >file").run().code(0);
        let notify = r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x","syscalls":[{"names":["keyctl"],"action":"SCMP_ACT_NOTIFY"}]}"#;
        fs::write("/srv/notify.json", notify).unwrap();
        let nested = format!("{TOOL} --report t --trace-fd 9 -- jc-rootfs --no-new-privs");
        for (line, tool, why) in [
            (format!("{TOOL} -- true"), TOOL, "no report"),
            (format!("{TOOL} --report t"), TOOL, "no program"),
            (format!("{TOOL} --report 1 -- true"), TOOL, "--report 1: descriptors up to 2"),
            (format!("{TOOL} --report directory -- true"), TOOL, "not a regular file"),
            (format!("{TOOL} --report link -- true"), TOOL, "not a regular file"),
            (format!("{TOOL} --report none/t -- true"), TOOL, "No such file or directory"),
            (format!("{TOOL} --report t --trace-fd 2 -- true"), TOOL, "descriptors up to 2"),
            (
                format!("{TOOL} --report t --trace-fd 9 -- true"),
                TOOL,
                "no link has sent a listener",
            ),
            (format!("{TOOL} --report t --usage 9 -- true"), TOOL, "needs --trace-fd"),
            (format!("{TOOL} --seccomp"), TOOL, "no report given"),
            (format!("{TOOL} --seccomp file"), TOOL, "file: expected ident"),
            (format!("{TOOL} --seccomp none"), TOOL, "open none: No such file"),
            (format!("{TOOL} --limits t0"), TOOL, "no usage of jc-cgroup"),
            (format!("{TOOL} --seccomp --exact t0"), TOOL, "lacks frequent calls"),
            (
                "jc-rootfs --trace-fd 9 root -- true".to_owned(),
                "jc-rootfs",
                "--trace-fd 9: Bad file",
            ),
            (
                format!("{nested} --trace-fd 9 --seccomp notify.json --state '{{}}' root -- true"),
                "jc-rootfs",
                "the profile has SCMP_ACT_NOTIFY",
            ),
        ] {
            s.sh(&format!("{TOOL} --report t0 -- true")).run().code(0);
            s.sh(&format!("exec {line}")).run().code(125).fails_as(tool, why);
        }
        s.sh("cat file").run().stdout("text\n");
    });
}
