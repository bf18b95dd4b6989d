//! jc-trace: reports against strace, and rules that suffice for the same run and for nothing more.

#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use jc_tests::internet::{Internet, PYTHON, lines};
use jc_tests::pulled::layer_dirs;
use jc_tests::registry::Registry;
use jc_tests::roots::busybox_root;
use jc_tests::{Sandbox, sandbox, sandbox_for, skip};
use serde_json::Value;

const TOOL: &str = "jc-trace";

/// The time for all programs under strace.
const LIMIT: Duration = Duration::from_secs(300);

/// Programs of different kinds, as lines of a shell, with a text of their output.
const PROGRAMS: [(&str, &str); 20] = [
    ("sh -c 'for i in 1 2 3; do echo $((i * 2)); done; cd /; pwd'", "6\n/"),
    ("bash -c 'while read -r line; do echo \"<$line>\"; done < data | sort -r'", "<two>"),
    (
        "/usr/bin/python3 -c 'import json, os; print(json.dumps(sorted(os.listdir(\"tree\"))))'",
        "[\"a\", \"b\"]",
    ),
    (
        "/usr/bin/python3 -c 'import threading as t; x = t.Thread(target=print, args=(7,)); x.start(); x.join()'",
        "7",
    ),
    ("cc -O1 -o program program.c && ./program", "compiled"),
    ("git init -q repo && cd repo && git add -A . && git status -s | wc -l && rm -rf ../repo", "0"),
    (
        "perl -e 'opendir(D, \"tree\"); print join(\" \", sort grep {!/^\\./} readdir D), \"\\n\"'",
        "a b",
    ),
    ("awk '{ n += length($0) } END { print n }' data", "6"),
    ("sed -n 's/o/0/p' data", "tw0"),
    ("tar -c tree | tar -t", "tree/a"),
    ("find tree -type f | sort | xargs cat", "file a"),
    ("make -s -f makefile", "made"),
    ("busybox sh -c 'ls tree; cp data copy; rm copy'", "a\nb"),
    ("./static", "static"),
    ("./i386", "32 bit"),
    ("jc-list -a && echo empty", "empty"),
    ("openssl dgst -sha256 data", "SHA2-256(data)= "),
    ("node -e 'console.log(require(\"fs\").readFileSync(\"data\", \"utf8\"))'", "one"),
    (
        "mkdir -p x/y && mv x/y x/z && ln -s z x/l && chmod 700 x/l && touch x/l/f && rm -r x && echo gone",
        "gone",
    ),
    ("/usr/bin/python3 server.py", "served"),
];

const SERVER: &str = "import http.server, threading, urllib.request
server = http.server.HTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f'http://127.0.0.1:{server.server_port}/data'
http.server.SimpleHTTPRequestHandler.log_message = lambda *_: None
print('served', urllib.request.urlopen(url).read().decode())
server.shutdown()";

/// A program without a C library: open(2), write(2) and exit(2) of x86.
const I386: &str = ".globl _start
_start: mov $5, %eax; mov $name, %ebx; xor %ecx, %ecx; int $0x80
 mov $4, %eax; mov $1, %ebx; mov $text, %ecx; mov $7, %edx; int $0x80
 mov $1, %eax; xor %ebx, %ebx; int $0x80
name: .asciz \"/srv/data\"
text: .ascii \"32 bit\\n\"
";

fn prepare(s: &Sandbox) {
    fs::write("/srv/data", "one\ntwo\n").unwrap();
    fs::write("/srv/server.py", SERVER).unwrap();
    fs::write("/srv/makefile", "all:\n\t@cat data >/dev/null; echo made\n").unwrap();
    let say = |text: &str| format!("#include <stdio.h>\nint main() {{ puts(\"{text}\"); }}\n");
    fs::write("/srv/program.c", say("compiled")).unwrap();
    fs::write("/srv/static.c", say("static")).unwrap();
    s.sh("mkdir tree && echo file a >tree/a && echo file b >tree/b && cc -static -o static static.c && ip link set lo up")
        .run()
        .code(0);
    fs::write("/srv/i386.s", I386).unwrap();
    // Other machines, and kernels without the ABI, run a script in its place.
    s.sh("as --32 -o i386.o i386.s && ld -m elf_i386 -o i386 i386.o && ./i386 ||
        { printf '#!/bin/sh\necho 32 bit\n' >i386 && chmod +x i386; }")
        .run()
        .code(0);
}

/// The names of the calls and the absolute paths that strace has seen.
fn seen_by_strace() -> (BTreeSet<String>, BTreeSet<String>) {
    const WITH_PATHS: [&str; 9] = [
        "access",
        "execve",
        "faccessat2",
        "lstat",
        "newfstatat",
        "open",
        "openat",
        "stat",
        "statx",
    ];
    let (mut calls, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for line in fs::read_to_string("/srv/st").unwrap().lines() {
        let line = line.split_once(' ').map_or(line, |(_, line)| line.trim_start());
        let Some((name, rest)) = line.split_once('(') else { continue };
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            continue;
        }
        calls.insert(name.to_owned());
        let is_plain = |path: &&str| path.starts_with('/') && !path.contains(['\\', '"']);
        let path = rest.split('"').nth(1).filter(|_| WITH_PATHS.contains(&name)).filter(is_plain);
        paths.extend(
            path.map(|path| path.trim_end_matches('/').to_owned()).filter(|path| !path.is_empty()),
        );
    }
    (calls, paths)
}

#[test]
fn strace_sees_no_call_and_no_path_that_a_report_lacks() {
    sandbox_for(LIMIT, |s| {
        prepare(s);
        for (line, text) in PROGRAMS {
            fs::write("/srv/line", format!("{line}\n")).unwrap();
            // Both see the same run, since the calls of many programs depend on time.
            let both = format!(
                "exec {TOOL} --calls --report t -- strace -f -qqq -s 4096 -e signal=none -o st sh line"
            );
            let ran = s.sh(&both).timeout(LIMIT).run();
            assert!(ran.status().success() && ran.out().contains(text), "{line}\n{ran}");
            let report = lines("/srv/t");
            let of = |kind: &str, key: &str| -> BTreeSet<String> {
                let events = report.iter().filter(|event| event["event"] == kind);
                events.map(|event| event[key].as_str().unwrap().to_owned()).collect()
            };
            let (calls, paths) = seen_by_strace();
            assert!(calls.len() > 3 && !paths.is_empty(), "{line}: {calls:?} {paths:?}");
            let lacking: Vec<_> = calls.difference(&of("call", "name")).cloned().collect();
            assert!(lacking.is_empty(), "{line}: {lacking:?}");
            let recorded = of("file", "path");
            let clean = |path: &String| {
                path.replace("//", "/").replace("/./", "/").trim_end_matches("/.").to_owned()
            };
            let lacking: Vec<_> =
                paths.iter().filter(|path| !recorded.contains(&clean(path))).collect();
            assert!(lacking.is_empty(), "{line}: {lacking:?}");
            let gaps: Vec<&Value> = report.iter().filter(|event| event["event"] == "gap").collect();
            assert!(gaps.is_empty(), "{line}: {gaps:?}");
        }
    });
}

/// Runs a line under a profile.
fn under(s: &Sandbox, profile: &str, line: &str) -> jc_tests::Ran {
    fs::write("/srv/line", format!("{line}\n")).unwrap();
    let rootfs = "exec jc-rootfs --bare -w /srv --no-new-privs --seccomp";
    s.sh(&format!("{rootfs} {profile} / -- sh line")).timeout(LIMIT).run()
}

#[test]
fn a_learned_profile_runs_the_same_program() {
    sandbox_for(LIMIT, |s| {
        prepare(s);
        for (number, (line, text)) in PROGRAMS.into_iter().enumerate() {
            fs::write("/srv/line", format!("{line}\n")).unwrap();
            s.sh(&format!(
                "{TOOL} --report t{number} -- sh line && {TOOL} --seccomp t{number} >profile"
            ))
            .timeout(LIMIT)
            .run()
            .code(0);
            let ran = under(s, "profile", line);
            assert!(ran.status().success() && ran.out().contains(text), "{line}\n{ran}");
        }
        // The union of all reports serves all programs.
        s.sh(&format!("{TOOL} --seccomp t? t1? >profile")).run().code(0);
        for (line, text) in PROGRAMS.into_iter().take(3) {
            assert!(under(s, "profile", line).code(0).out().contains(text), "{line}");
        }
    });
}

/// Calls that a program makes besides, each of which a profile refuses.
const BESIDES: [(&str, &str); 5] = [
    ("libc.syscall(250, 1, 0)", "keyctl"),
    ("socket.socket(38, socket.SOCK_SEQPACKET)", "a new socket family"),
    ("check(libc.unshare(0x10000000))", "a user namespace"),
    ("check(libc.prctl(30, 0, 0, 0, 0))", "another option of prctl"),
    ("check(libc.personality(8))", "another personality"),
];

#[test]
fn a_learned_profile_refuses_one_more_call() {
    sandbox(|s| {
        if cfg!(not(target_arch = "x86_64")) {
            skip!("numbers of x86_64");
        }
        s.sh("ip link set lo up").run().code(0);
        let program = "import ctypes, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def check(result):
    if result < 0: raise OSError(ctypes.get_errno(), 'refused')
socket.socket(socket.AF_INET)
if len(sys.argv) > 1:
    try:
        result = eval(sys.argv[1])
        if result == -1: check(-1)
        print('allowed')
    except OSError as error:
        print('refused', error.errno)
else:
    print('plain')";
        fs::write("/srv/p.py", program).unwrap();
        let line = format!("{PYTHON} p.py");
        s.sh(&format!("{TOOL} --calls --report t -- sh -c '{line}; true'"))
            .run()
            .code(0)
            .stdout("plain\n");
        s.sh(&format!(
            "{TOOL} --seccomp t >most && {TOOL} --seccomp --base default t >base && {TOOL} --seccomp --exact t >least"
        ))
        .run()
        .code(0);
        for profile in ["most", "base", "least"] {
            let ran = under(s, profile, &format!("{line}; true"));
            ran.code(0).stdout("plain\n");
            for (besides, what) in BESIDES {
                let ran = under(s, profile, &format!("{line} '{besides}'; true"));
                assert!(ran.code(0).out().starts_with("refused 1"), "{profile}: {what}");
            }
        }
        // Without the profile the calls do not fail so.
        let ran = s.sh(&format!("{line} 'check(libc.prctl(30, 0, 0, 0, 0))'")).run();
        ran.stdout("allowed\n");
        for (besides, _) in BESIDES {
            s.sh(&format!("{TOOL} --report more -- {line} '{besides}'")).run().code(0);
            s.sh(&format!("{TOOL} --seccomp t more >profile")).run().code(0);
            let alone = s.sh(&format!("{line} '{besides}'")).run().out();
            let ran = under(s, "profile", &format!("{line} '{besides}'; true"));
            assert_eq!(ran.out(), alone, "{besides}");
        }
    });
}

#[test]
fn a_container_runs_under_its_learned_profile() {
    sandbox(|s| {
        busybox_root(s, "root");
        let script = "cat /etc/hostname >/dev/null; echo done";
        let run = "jc-run --network none --rootfs root";
        s.sh(&format!("{run} --trace t -- sh -c '{script}'")).run().code(0).stdout("done\n");
        s.sh(&format!("{TOOL} --seccomp t >profile; {TOOL} --seccomp --base default t >base"))
            .run()
            .code(0);
        for options in ["", "--init", "-u 1", "--security-opt no-new-privileges=false", "-t"] {
            for profile in ["profile", "base"] {
                let line =
                    format!("{run} {options} --security-opt seccomp={profile} -- sh -c '{script}'");
                if options == "-t" {
                    let mut terminal =
                        jc_tests::pty::Terminal::start(s.sh(&format!("exec {line}")));
                    terminal.wait_for("done");
                    assert_eq!(terminal.wait().0.code(), Some(0));
                } else {
                    s.sh(&line).run().code(0).stdout("done\n");
                }
            }
        }
    });
}

#[test]
fn the_listed_files_suffice_for_the_same_run() {
    sandbox(|s| {
        s.sh("mkdir -p base/app && echo text >base/app/f && ln -s f base/app/l && echo unused >base/app/unused")
            .run()
            .code(0);
        let script = "for file in $(ldd /bin/cat /bin/sh | grep -o '/[^ ]*' | grep -v :) /bin/cat /bin/sh /bin/ls; do \
            mkdir -p base/${file%/*}; cp -L $file base$file; done";
        s.sh(script).run().code(0);
        let run = "jc-rootfs --upper tmpfs --no-new-privs -w /app";
        let line = "sh -c 'cat ./l ../app/f'";
        s.sh(&format!(
            "{TOOL} --report t --trace-fd 9 -- {run} --trace-fd 9 base -- {line} && {TOOL} --files t >files"
        ))
        .run()
        .code(0)
        .stdout("text\ntext\n");
        let listed = fs::read_to_string("/srv/files").unwrap();
        for (path, is_listed) in [
            ("/app", true),
            ("/app/l", true),
            ("/app/f", true),
            ("/app/unused", false),
            ("/bin/ls", false),
        ] {
            assert_eq!(listed.lines().any(|line| line == path), is_listed, "{path} {listed}");
        }
        s.sh("mkdir slim && cd base && xargs -d '\\n' -a ../files sh -c 'for p; do p=.$p; [ ! -e $p ] || [ -d $p ] || \
            cp --parents -d $p ../slim; done' _")
            .run()
            .code(0);
        s.sh(&format!("{run} slim -- {line}")).run().code(0).stdout("text\ntext\n");
        assert_eq!(s.sh("ls slim/app").run().out(), "f\nl\n");
    });
}

/// A shell script with programs of the Debian image: a shell, Perl with modules, accounts, pipes and a directory.
const SCRIPT: &str = r#"bash -c 'echo "bash ${BASH_VERSINFO[0]}"'
perl -MPOSIX -MData::Dumper -e 'print POSIX::strftime("%F", gmtime 0), " ", ref(bless {}, "X"), "\n"'
printf "b\na\n" | sort | sed s/a/x/ | tr b c
id -un; date -u -d @0; basename /a/b.c .c; cat /no/such/file
ls -d /etc/d*; wc -l </etc/passwd; grep -c root /etc/passwd; find /etc/motd
exit 7"#;

#[test]
fn a_slim_image_gives_the_same_output_and_is_smaller() {
    sandbox_for(LIMIT, |s| {
        let registry = Registry::prepared(s);
        fs::write("/srv/script", SCRIPT).unwrap();
        let size = |record: &str| {
            let record: Value = serde_json::from_str(&fs::read_to_string(record).unwrap()).unwrap();
            let layers = layer_dirs(&record);
            let layers: Vec<_> = layers.iter().map(|layer| layer.display().to_string()).collect();
            let ran = s.sh(&format!("du -sbc {} | tail -1 | cut -f 1", layers.join(" "))).run();
            ran.out().trim().parse::<u64>().unwrap()
        };
        let run = "jc-run --network none -v /srv/script:/script:ro --record";
        s.sh(&format!("jc-pull -q {}/debian >base", registry.address())).run().code(0);
        let traced = s.sh(&format!("{run} base --trace t -- sh /script")).run().code(7);
        s.sh(&format!("{TOOL} --files t >files && jc-commit --only files <base >slim"))
            .run()
            .code(0);
        let [base, slim] =
            ["base", "slim"].map(|record| s.sh(&format!("{run} {record} -- sh /script")).run());
        for ran in [&base, &slim] {
            assert_eq!(
                (ran.status().code(), ran.out(), ran.err()),
                (Some(7), traced.out(), traced.err())
            );
        }
        assert!(slim.out().starts_with("bash 5\n1970-01-01 X\n"), "{slim}");
        assert!(slim.err().contains("/no/such/file"), "{slim}");
        let (whole, rest) = (size("base"), size("slim"));
        assert!(rest > 1 << 20 && rest < whole / 4, "{rest} of {whole}");
        // The shell of the other image lacks a program that was not used.
        s.sh(&format!("{run} base -- which apt")).run().code(0).stdout("/usr/bin/apt\n");
        s.sh(&format!("{run} slim -- sh -c 'command -v apt'")).run().code(127);
    });
}

/// A log of jc-egress has the names that a program has connected to, and the report has its synthetic addresses.
#[test]
fn rules_of_a_container_behind_jc_egress_suffice() {
    sandbox(|s| {
        let _internet = Internet::start(s);
        busybox_root(s, "root");
        fs::write("/srv/root/hello", "GET / HTTP/1.0\r\nHost: good.example\r\n\r\n").unwrap();
        let script = "echo | nc -w 5 tcp.example 22; nc -w 5 good.example 80 </hello | head -1; \
            echo | nc -w 5 evil.example 80; true";
        let run = |options: &str| {
            s.sh(&format!("jc-run {options} --rootfs root -- sh -c '{script}'")).run().code(0).out()
        };
        let allowed = "--allow tcp.example:22 --allow good.example:80 --allow 203.0.113.20:5432";
        let all = run(&format!("{allowed} --egress-log log --trace t"));
        assert!(all.starts_with("SSH-2.0-good\r\n"), "{all}");
        s.sh(&format!("{TOOL} --allow t"))
            .run()
            .code(0)
            .stdout("good.example:80\ntcp.example:22\n");
        s.sh(&format!("{TOOL} --allow t >rules")).run().code(0);
        assert_eq!(run("--allow-file rules"), all);
        // Without the log the names are not known.
        run(&format!("{allowed} --trace t"));
        s.sh(&format!("{TOOL} --allow t")).run().code(125).fails_as(TOOL, "the names of jc-egress");
    });
}

#[test]
fn learned_rules_for_landlock_suffice() {
    sandbox(|s| {
        if !s.sh("jc-landlock --rx / -- true").run().status().success() {
            skip!("Landlock");
        }
        s.sh("mkdir d out && echo text >d/f && echo secret >secret && chmod -R 777 .")
            .run()
            .code(0);
        let line = "sh -c 'cat d/f >out/x; mv out/x out/y; rm out/y; cat d/f; ls d'";
        s.sh(&format!("{TOOL} --report t -- {line} && {TOOL} --landlock t >rules")).run().code(0);
        s.sh(&format!("jc-landlock --rules rules -- {line}")).run().code(0).stdout("text\nf\n");
        let ran = s.sh("jc-landlock --rules rules -- sh -c 'cat d/f secret'").run();
        assert!(ran.out() == "text\n" && ran.err().contains("Permission denied"), "{ran}");
        let ran = s.sh("jc-landlock --rules rules -- sh -c 'echo >d/new'").run();
        assert!(ran.err().contains("Permission denied"), "{ran}");
        s.sh("echo 'ro' >wrong").run().code(0);
        s.sh("jc-landlock --rules wrong -- true")
            .run()
            .code(125)
            .fails_as("jc-landlock", "wrong: ro: no rule");
    });
}

#[test]
fn limits_and_names_come_from_other_links() {
    sandbox(|s| {
        let cgroup = "jc-cgroup -m 512M";
        let chain = "jc-rootfs --trace-fd 9 --no-new-privs / -- sh -c 'head -c 30000000 /dev/zero | tail -c 25000000 >/dev/null'";
        if !s.sh(&format!("{cgroup} -- true")).run().status().success() {
            skip!("memory limits");
        }
        for (usage, report) in [("8", "8"), ("usage", "usage")] {
            s.sh(&format!("{TOOL} --report t --trace-fd 9 --usage {usage} -- {cgroup} --report {report} -- {chain}"))
                .run()
                .code(0);
            let limits = s.sh(&format!("{TOOL} --limits t")).run().code(0).out();
            let options: Vec<&str> = limits.split_whitespace().collect();
            assert_eq!((options[0], options[2]), ("-m", "--pids-limit"), "{limits}");
            let memory: u64 = options[1].trim_end_matches('M').parse().unwrap();
            assert!((20..512).contains(&memory), "{limits}");
            s.sh(&format!(
                "jc-cgroup {limits} -- sh -c 'head -c 30000000 /dev/zero | tail -c 25000000 >/dev/null'"
            )
            .replace('\n', ""))
                .run()
                .code(0);
        }
        let entry = |name: &str, verdict: &str| {
            format!(
                r#"{{"time":1.0,"verdict":"{verdict}","protocol":"tcp","name":"{name}","port":443}}"#
            )
        };
        fs::write("/srv/log", entry("old.example", "allow") + "\n").unwrap();
        let added = [entry("a.example", "allow"), entry("b.example", "deny")].join("\n");
        let script = format!("cat >>log <<'E'\n{added}\nE\n");
        fs::write("/srv/line", script).unwrap();
        s.sh(&format!("{TOOL} --report t --egress-log log -- sh line && {TOOL} --allow t"))
            .run()
            .code(0)
            .stdout("a.example:443\n");
    });
}
