//! Programs behind `jc-egress`: curl, git and wget reach the host of a rule by TLS, with a certificate authority of
//! the test's own, and fail at once at another host.

#![cfg(target_os = "linux")]

use std::fs;

use jc_tests::internet::Internet;
use jc_tests::{Running, Sandbox, require, sandbox};
use rustix::process::Signal;

const PYTHON: &str = "/usr/bin/python3";
const CALLERS: [&str; 2] = ["", "setpriv --reuid 65534 --regid 65534 --clear-groups"];
const EGRESS: &str = "jc-egress --allow good.example:8443:tls --log /srv/log --";

/// An authority, a certificate of good.example, a repository of git, and a server of them.
fn serve(s: &Sandbox) -> Running {
    s.sh(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.pem -days 2 \
             -subj /CN=authority
         openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out request -subj /CN=x
         printf 'subjectAltName=DNS:good.example\n' >ext
         openssl x509 -req -in request -CA ca.pem -CAkey ca.key -out cert.pem -days 2 -extfile ext
         mkdir www && echo hello >www/index.html
         export HOME=/srv GIT_AUTHOR_NAME=x GIT_AUTHOR_EMAIL=x@x GIT_COMMITTER_NAME=x GIT_COMMITTER_EMAIL=x@x
         git init -q work && echo text >work/file && git -C work add file && git -C work commit -qm first
         git clone -q --bare work www/repo.git && git -C www/repo.git update-server-info
         touch log && chmod 666 log",
    )
    .run()
    .code(0);
    fs::write("/srv/https.py", include_str!("egress_support/https.py")).unwrap();
    let line =
        format!("cd www && exec {PYTHON} /srv/https.py 203.0.113.10 8443 ../cert.pem ../key.pem");
    let mut server = s.sh(&line).spawn();
    server.wait_for("ready\n");
    server
}

#[test]
fn programs_get_through_by_tls_and_fail_at_once_elsewhere() {
    sandbox(|s| {
        for (program, package) in [("curl", "curl"), ("git", "git"), ("openssl", "openssl")] {
            require(s, program, package);
        }
        let _internet = Internet::start(s);
        let server = serve(s);
        for (number, caller) in CALLERS.into_iter().enumerate() {
            let run = |what: &str| {
                let home = format!("/tmp/home{number}");
                let line =
                    format!("mkdir -p {home}; cd {home}; export HOME={home}; exec {EGRESS} {what}");
                s.sh(&format!("{caller} sh -c '{line}'")).run()
            };
            run("curl -sS --cacert /srv/ca.pem https://good.example:8443/")
                .code(0)
                .stdout("hello\n");
            let clone =
                "env GIT_SSL_CAINFO=/srv/ca.pem git clone -q https://good.example:8443/repo.git";
            run(clone).code(0);
            let text = fs::read_to_string(format!("/tmp/home{number}/repo/file")).unwrap();
            assert_eq!(text, "text\n");
            let refused = run("curl -sS https://evil.example:8443/").code(6);
            assert!(refused.err().contains("Could not resolve host"), "{refused}");
            let refused = run("git clone -q https://evil.example:8443/repo.git other").code(128);
            assert!(refused.err().contains("Could not resolve host"), "{refused}");
            let other =
                run("curl -sS --resolve good.example:8443:203.0.113.10 https://good.example:8443/");
            assert_ne!(other.status().code(), Some(0), "{other}");
        }
        server.signal(Signal::KILL);
        server.wait();
        s.sh("rm -r /tmp/home*").run().code(0);
        let log = fs::read_to_string("/srv/log").unwrap();
        assert!(log.contains(r#""sni":"good.example""#), "{log}");
    });
}
