//! `jc-egress --learn`: the rules of what a program did, for the next time.

#![cfg(target_os = "linux")]

use std::fs;

use jc_tests::internet::{CALLERS, Internet, PYTHON, lines};
use jc_tests::sandbox;
use rustix::process::Signal;
use serde_json::Value;

const TOOL: &str = "jc-egress";

/// Connections of each kind, in which the program learns nothing but whether the host has answered.
const CONNECTIONS: &str = r#"
import socket, sys
sys.path.insert(0, "/srv")
from attempts import GET, GET_EVIL, ask, extension, hello, sni
ech = hello(extensions=[sni(b"b.wild.example"), extension(0xfe0d, b"0" * 32)])
for host, port, data in [
    ("good.example", 80, GET), ("good.example", 443, hello("good.example")), ("a.wild.example", 80, GET + GET_EVIL),
    ("b.wild.example", 443, ech), ("evil.example", 443, b"SSH-2.0-x\r\n"), ("tcp.example", 22, b""),
    ("private.example", 9999, b"x"), ("203.0.113.20", 5432, b""), ("2001:db8::10", 80, GET),
    ("none.example", 80, GET), ("203.0.113.77", 81, b"x"), ("good.example", 80, GET)]:
    try:
        print(bool(ask(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0], port, data, count=1)))
    except OSError:
        print("refused")
"#;

const LEARNED: &str = "203.0.113.20:5432
[2001:db8::10]:80
a.wild.example:80:tcp
b.wild.example:443:ech
evil.example:443:tcp
good.example:443
good.example:80
private private.example:9999
tcp.example:22
";

#[test]
fn learned_rules_allow_the_same_again_and_no_more() {
    sandbox(|s| {
        let _internet = Internet::start(s);
        fs::write("/srv/attempts.py", include_str!("egress_support/attempts.py")).unwrap();
        fs::write("/srv/connections.py", CONNECTIONS).unwrap();
        s.sh("mkdir -m 777 learned").run().code(0);
        for (number, caller) in CALLERS.into_iter().enumerate() {
            let file = format!("/srv/learned/{number}");
            let run = |options: &str| {
                let line = format!("{caller} {TOOL} {options} -- {PYTHON} /srv/connections.py");
                s.sh(&line).run().code(0).out()
            };
            fs::write(
                &file, "before
",
            )
            .unwrap();
            let first = run(&format!("--learn {file} --deny 203.0.113.77:*"));
            assert_eq!(
                first,
                "True
"
                .repeat(9)
                    + "refused
refused
True
"
            );
            assert_eq!(fs::read_to_string(&file).unwrap(), LEARNED);
            let log = format!("/srv/learned/log{number}");
            assert_eq!(run(&format!("--allow-file {file} --log {log}")), first);
            let refused: Vec<Value> =
                lines(&log).into_iter().filter(|line| line["verdict"] == "deny").collect();
            let is_expected =
                |l: &Value| l["name"] == "none.example" || l["address"] == "203.0.113.77";
            assert!(refused.len() >= 2 && refused.iter().all(is_expected), "{refused:?}");
        }
        assert_eq!(
            s.sh("ls -A learned").run().code(0).out(),
            "0
1
log0
log1
"
        );
    });
}

#[test]
fn learned_rules_replace_a_file_at_the_end_only() {
    sandbox(|s| {
        s.sh("mkdir directory && ln -s target link && echo before >file").run().code(0);
        for (file, why) in [
            ("directory", "not a regular file"),
            ("link", "not a regular file"),
            ("/dev/null", "not a regular file"),
            ("none/x", "No such file or directory"),
            ("directory/", "Is a directory"),
        ] {
            let ran = s.sh(&format!("{TOOL} --learn {file} -- echo ran")).run().code(125);
            ran.stdout("").fails_as(TOOL, why);
        }
        let user = s.sh(&format!("{} {TOOL} --learn /etc/x -- echo ran", CALLERS[1])).run();
        user.code(125).stdout("").fails_as(TOOL, "--learn /etc/x: Permission denied");
        let script = format!("exec {TOOL} --learn file -- sh -c 'echo ready; exec sleep 1000'");
        let mut running = s.sh(&script).spawn();
        running.wait_for(
            "ready
",
        );
        running.signal(Signal::KILL);
        running.wait().killed_by(Signal::KILL);
        s.wait_for_no_process();
        s.sh("cat file; ls -A | grep jc-").run().stdout(
            "before
",
        );
        s.sh(&format!("{TOOL} --learn file -- true && cat file")).run().code(0).stdout("");
    });
}
