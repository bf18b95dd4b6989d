//! Attempts to bypass `jc-egress`: a table (`egress_support/attempts.py`), whose attempts run inside as root and as
//! an ordinary user.

#![cfg(target_os = "linux")]

use std::fs;
use std::time::Duration;

use jc_tests::internet::{CALLERS, Internet, PYTHON, by_attempt, rules};
use jc_tests::{Sandbox, sandbox_for, workspace_dir};
use serde_json::Value;

/// The words in front of a program of a user.
const USER: &str = CALLERS[1];

/// Attempts without a decision of jc-egress, because the kernel ends them before there is a packet or a query, and the
/// errors of the kernel. An empty text stands for an attempt that found nothing to try.
const WITHOUT_PACKET: [(&str, &[&str]); 30] = [
    ("literal_broadcast", &["Network is unreachable"]),
    ("socket_icmp", &["Permission denied"]),
    ("socket_icmp_v6", &["Permission denied"]),
    ("socket_raw", &["Operation not permitted"]),
    ("socket_raw_icmp", &["Operation not permitted"]),
    ("socket_udplite", &["Protocol not supported"]),
    ("socket_sctp", &["Protocol not supported"]),
    ("packet_socket", &["Address family not supported by protocol", "Operation not permitted"]),
    ("vsock", &["Address family not supported by protocol", "Operation not permitted"]),
    ("socket_by_io_uring", &["Operation not permitted", "Function not implemented"]),
    ("socket_of_x32", &["Operation not permitted", "Function not implemented"]),
    ("abstract_socket_of_host", &["Connection refused"]),
    ("file_socket_nscd", &["Connection refused", "No such file or directory"]),
    ("file_socket_resolved", &["Connection refused", "No such file or directory"]),
    ("file_socket_bus", &["Connection refused", "No such file or directory"]),
    ("file_socket_of_a_service", &["No such file or directory"]),
    ("file_that_a_process_outside_reads", &["No such file or directory: '/srv/drop/request'"]),
    ("uncovered_socket", &["Connection refused", "No such file or directory"]),
    ("inherited_descriptors", &[""]),
    ("flush_of_the_table", &["Operation not permitted"]),
    ("new_interface", &["Operation not permitted"]),
    ("new_namespace_net", &["Operation not permitted", "Network is unreachable"]),
    ("new_namespace_user_and_net", &["Operation not permitted", "Network is unreachable"]),
    ("join_of_the_hosts_namespace", &[""]),
    ("descriptors_of_others", &[""]),
    ("root_of_others", &[""]),
    ("trace_ptrace", &[""]),
    ("trace_attach", &[""]),
    ("pidfd_getfd", &[""]),
    ("memory_of_others", &[""]),
];

/// Attempts in which the program reaches only itself.
const TO_ITSELF: [&str; 5] = [
    "loopback_of_host_v4",
    "loopback_of_host_any",
    "loopback_of_host_v6",
    "loopback_of_host_other",
    "datagram_loopback_of_host",
];

/// Attempts whose connections a rule allows, and which reach no other host, with the name of the host. The line of such a
/// connection comes at its end.
const ALLOWED: [(&str, &str); 2] =
    [("leads_to_rebound", "rebind.example"), ("tls_in_tls", "good.example")];

/// The attempt asks for names that a rule allows. The resolver answers itself, and the log has refused names only.
const ANSWERED: &str = "dns_tunnel_below_suffix";

/// The attempt depends on whether the kernel lets the program make a user namespace.
const DEPENDS: &str = "new_namespace_user";

/// Runs all attempts by a command line, of which the last word is followed by the attempts and their names.
fn attempt_all(s: &Sandbox, internet: &Internet, what: &str, command: &str) {
    let log = format!("/srv/log-{}", what.replace(' ', "-"));
    fs::write(&log, "").unwrap();
    s.sh(&format!("chmod 666 {log}; mkdir -m 1777 /srv/drop")).run().code(0);
    let option = if command.contains("jc-run") { "--egress-log" } else { "--log" };
    let command = command.replace("RULES", &format!("{} {option} {log}", rules()));
    internet.events();
    // The payload inherits a descriptor of a careless caller, and a process of the same user runs outside.
    let script =
        format!("exec 7>/srv/open; {USER} sleep 100 & {command}; code=$?; kill $!; exit $code");
    let ran = s.sh(&script).timeout(Duration::from_secs(150)).run().code(0);
    let (mut attempts, mut failures, is_bare) = (0, Vec::new(), what.starts_with("bare"));
    for line in ran.out().lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        match (value["control"].as_str(), value["got"].is_null()) {
            (Some(name), true) => failures.push(format!("{name} does not get through: {line}")),
            (None, passes) => {
                let is_marked = is_bare && value["bare"].is_string();
                match (is_marked, !passes) {
                    (false, true) => failures.push(format!("gets through: {line}")),
                    (true, false) => failures.push(format!("is marked, but ends: {line}")),
                    _ => {}
                }
            }
            _ => {}
        }
        attempts += usize::from(value["attempt"].is_string());
    }
    assert!(attempts >= 60, "{attempts} attempts\n{ran}");
    for event in internet.events() {
        let is_wanted = match event.split_once(' ').unwrap() {
            ("dns", name) => {
                ["good", "tcp", "private", "meta", "loop", "mapped", "rebind", "denied", "a.wild"]
                    .iter()
                    .any(|known| name == format!("{known}.example"))
            }
            ("http" | "tls", bytes) => !bytes.contains("evil"),
            _ => false,
        };
        if !is_wanted {
            failures.push(format!("has come outside: {event}"));
        }
    }
    let log = fs::read_to_string(&log).unwrap();
    for (attempt, host) in ALLOWED {
        let is_line = |line: &str| {
            line.contains(r#""verdict":"allow""#) && line.contains(&format!(r#""name":"{host}""#))
        };
        if !log.lines().any(is_line) {
            failures.push(format!("{attempt}: the log has no connection to {host}"));
        }
    }
    let decisions = by_attempt(&log);
    for line in ran.out().lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        let Some(name) = value["attempt"].as_str() else { continue };
        let has_denial = decisions
            .get(name)
            .is_some_and(|lines| lines.iter().any(|l| l.contains(r#""verdict":"deny""#)));
        let error = value["error"].as_str().unwrap_or_default();
        let error = error.split_once("] ").map_or(error, |(_, text)| text);
        let ended = WITHOUT_PACKET.iter().find(|(listed, _)| *listed == name);
        let is_explained = match ended {
            Some((_, errors)) => !value["got"].is_null() || errors.contains(&error),
            None if ALLOWED.iter().any(|(allowed, _)| *allowed == name) => true,
            None => TO_ITSELF.contains(&name) || ANSWERED == name || DEPENDS == name,
        };
        if !is_explained && !has_denial {
            failures.push(format!("is not in the log: {line}"));
        }
    }
    assert!(failures.is_empty(), "{what}:\n{}", failures.join("\n"));
}

/// The path of the attempts, which every user can read.
fn attempts() -> String {
    let script = workspace_dir().join("tests/tests/egress_support/attempts.py");
    let copy = "/srv/attempts.py";
    fs::copy(script, copy).unwrap();
    copy.to_owned()
}

/// A copy of the host's root without the directories of a container.
fn root(s: &Sandbox) -> &'static str {
    s.sh(
        "mkdir -p /srv/root && cd /srv/root && mkdir proc sys dev etc tmp usr srv run && chmod 1777 tmp &&
         for name in bin sbin lib lib64; do ln -s usr/$name $name; done",
    )
    .run()
    .code(0);
    "/srv/root"
}

#[test]
fn no_attempt_of_root_gets_past_bare_jc_egress() {
    sandbox_for(Duration::from_secs(200), |s| {
        let (internet, attempts) = (Internet::start(s), attempts());
        attempt_all(s, &internet, "bare root", &format!("jc-egress RULES -- {PYTHON} {attempts}"));
    });
}

#[test]
fn no_attempt_of_a_user_gets_past_bare_jc_egress() {
    sandbox_for(Duration::from_secs(200), |s| {
        let (internet, attempts) = (Internet::start(s), attempts());
        attempt_all(
            s,
            &internet,
            "bare user",
            &format!("{USER} jc-egress RULES -- {PYTHON} {attempts}"),
        );
    });
}

#[test]
fn no_attempt_gets_past_jc_egress_with_jc_rootfs_behind_it() {
    sandbox_for(Duration::from_secs(200), |s| {
        let (internet, attempts) = (Internet::start(s), attempts());
        let root = root(s);
        let rootfs = format!(
            "jc-unshare -puiC -- jc-rootfs -v /usr:/usr:ro -v {attempts}:/srv/attempts.py:ro --upper tmpfs {root} \
             {PYTHON} {attempts}"
        );
        attempt_all(s, &internet, "chain root", &format!("jc-egress RULES -- {rootfs}"));
    });
}

#[test]
fn no_attempt_of_a_user_gets_past_jc_egress_with_jc_rootfs_behind_it() {
    sandbox_for(Duration::from_secs(200), |s| {
        let (internet, attempts) = (Internet::start(s), attempts());
        let root = root(s);
        s.sh("chown -R 65534:65534 /srv/root").run().code(0);
        let rootfs = format!(
            "jc-unshare -U -r -puiC -- jc-rootfs -v /usr:/usr:ro -v {attempts}:/srv/attempts.py:ro --upper tmpfs {root} \
             {PYTHON} {attempts}"
        );
        attempt_all(s, &internet, "chain user", &format!("{USER} jc-egress RULES -- {rootfs}"));
    });
}

/// The options of jc-run that make a container of the host's programs.
fn container(s: &Sandbox, attempts: &str) -> String {
    let root = root(s);
    s.sh("chown -R 65534:65534 /srv/root && mkdir -m 1777 /srv/state").run().code(0);
    format!("-v /usr:/usr:ro -v {attempts}:{attempts}:ro --rootfs {root} -- {PYTHON} {attempts}")
}

#[test]
fn no_attempt_of_root_gets_past_jc_run() {
    sandbox_for(Duration::from_secs(200), |s| {
        let (internet, attempts) = (Internet::start(s), attempts());
        let container = container(s, &attempts);
        attempt_all(s, &internet, "jc-run root", &format!("jc-run RULES {container}"));
    });
}

#[test]
fn no_attempt_of_a_user_gets_past_jc_run() {
    sandbox_for(Duration::from_secs(200), |s| {
        let (internet, attempts) = (Internet::start(s), attempts());
        let container = container(s, &attempts);
        let caller = format!("{USER} env HOME=/srv JC_STATE_DIR=/srv/state/user");
        attempt_all(s, &internet, "jc-run user", &format!("{caller} jc-run RULES {container}"));
    });
}
