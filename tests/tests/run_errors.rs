//! jc-stop, jc-exec and jc-rm with failed system calls: an error does not mean that a container has ended.

#![cfg(target_os = "linux")]

use jc_tests::roots::busybox_root;
use jc_tests::sandbox;
use jc_tests::seccomp::without;
use nix::libc::{self, EIO, EMFILE, ENOMEM};

#[test]
fn a_process_that_cannot_be_opened_has_not_ended() {
    sandbox(|s| {
        busybox_root(s, "root");
        let start = "jc-run -d --network none --rootfs root -- sleep 1000";
        let id = s.sh(start).run().code(0).out().trim_end().to_owned();
        for errno in [EMFILE, ENOMEM, EIO] {
            for words in [&["jc-stop", "-t", "1", &id][..], &["jc-exec", &id, "true"]] {
                let command = s.jc(words[0]).args(&words[1..]);
                let ran = without(&[libc::SYS_pidfd_open], errno, || command.spawn()).wait();
                assert!(![Some(0)].contains(&ran.status().code()), "{errno}\n{ran}");
                ran.fails_as(words[0], "pidfd_open");
            }
        }
        s.jc("jc-exec").args([&id, "echo", "alive"]).run().code(0).stdout("alive\n");
        s.jc("jc-rm").args(["-f", &id]).run().code(0);
    });
}
