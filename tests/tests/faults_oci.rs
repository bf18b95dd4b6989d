//! A signal at a system call of jc-oci and its chain, or a failed call: the payload has all of its isolation or does not
//! start, and `delete --force` removes all objects. The variables are those of `faults.rs`.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod oci_support;

use jc_tests::faults::{Act, Fault, run};
use jc_tests::line::{LONG, Line, REPORT, survives};
use jc_tests::sandbox_for;
use nix::errno::Errno;
use nix::libc;
use oci_support::Bundle;

/// A script that runs commands of jc-oci, whose errors have exit code 1, and fails as a link does.
fn script(commands: &str) -> String {
    format!(
        "jc_oci() {{ jc-oci --root /srv/states \"$@\"; }}; {commands}; code=$?; [ $code != 1 ] || code=125; exit $code"
    )
}

/// The container, which the engine removes after a failure, is gone.
const DELETED: &str = "jc-oci --root /srv/states delete -f c && test -z \"$(ls -A /srv/states)\"";

#[test]
fn no_fault_breaks_a_bundle() {
    sandbox_for(LONG, |s| {
        let bundle = Bundle::new(s, REPORT);
        let line = script("jc_oci run -b /srv/bundle c");
        let words = vec!["sh", "-c", &line];
        survives(s, &Line { before: ":", words, after: DELETED, reports: true });
        bundle.assert_gone();
    });
}

/// The kernel applies the rules of version 1 in the order of the writes.
#[test]
fn a_rule_for_devices_that_fails_is_an_error_or_keeps_its_place() {
    sandbox_for(LONG, |s| {
        let bundle =
            Bundle::new(s, "for name in null zero full; do : </dev/$name; done && echo open");
        let line = script("jc_oci run -b /srv/bundle c");
        let words = ["sh", "-c", &line];
        let good = run(s, &words, None);
        assert_eq!((good.code, good.stdout.as_str()), (0, "open\n"), "{}", good.stderr);
        let calls = good.calls[1].iter().enumerate();
        let writes =
            calls.filter(|(_, call)| call.has_begun && call.number as i64 == libc::SYS_write);
        let writes: Vec<usize> = writes.map(|(place, _)| place).collect();
        assert!(!writes.is_empty());
        for call in writes {
            let act = Act::Fail(Errno::ENOMEM);
            let ended = run(s, &words, Some(Fault { process: 1, call, act }));
            let is_whole = (ended.code, ended.stdout.as_str()) == (0, "open\n");
            let has_failed = ended.code == 125 && ended.stderr.contains("jc-oci: error: ");
            assert!(has_failed || is_whole, "{call}: {} {}", ended.code, ended.stderr);
            s.sh(DELETED).run().code(0);
        }
        bundle.assert_gone();
    });
}

#[test]
fn no_fault_breaks_the_creation_and_the_start_of_a_bundle() {
    sandbox_for(LONG, |s| {
        let bundle = Bundle::new(s, "exec sleep 1000");
        let line = script(
            "jc_oci create -b /srv/bundle c </dev/null >/dev/null 2>/srv/errors && jc_oci start c ||
             { jc_oci delete -f c; false; }",
        );
        let words = vec!["sh", "-c", &line];
        survives(s, &Line { before: ":", words, after: DELETED, reports: false });
        bundle.assert_gone();
    });
}

#[test]
fn no_fault_breaks_the_deletion_of_a_bundle() {
    sandbox_for(LONG, |s| {
        let bundle = Bundle::new(s, "exec sleep 1000");
        let before = "jc-oci --root /srv/states run -d -b /srv/bundle c </dev/null >/dev/null 2>&1";
        let line = script("jc_oci delete -f c");
        let words = vec!["sh", "-c", &line];
        survives(s, &Line { before, words, after: DELETED, reports: false });
        bundle.assert_gone();
    });
}
