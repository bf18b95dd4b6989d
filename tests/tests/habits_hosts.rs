//! Hosts of every kind: a chroot, user namespaces, and containers without and with privileges.

#![cfg(target_os = "linux")]

use jc_tests::image::{Image, Layout};
use jc_tests::layer::Layer;
use jc_tests::roots::busybox_layer;
use jc_tests::{Sandbox, sandbox};
use serde_json::json;

/// An image, and a directory with the programs, the image and the file systems that a root needs.
fn prepare(s: &Sandbox) {
    let more = Layer::new().symlink("lib", "usr/lib").symlink("lib64", "usr/lib64");
    let image = Image::new().layer(busybox_layer()).layer(more).config(json!({"Cmd": ["id"]}));
    Layout::new(s.path("image")).image("x", &image);
    s.sh(
        "echo host > marker; mkdir -p c/srv c/proc c/sys c/dev c/run c/tmp c/etc c/var c/usr c/programs
        cp -r image c/srv/; cp $(dirname $(command -v jc-run))/jc-* c/programs/; ln -s usr/lib usr/lib64 usr/bin c/
        mount --rbind /proc c/proc; mount --rbind /sys c/sys; mount --rbind /dev c/dev; mount --bind /usr c/usr",
    )
    .run()
    .code(0);
}

/// The way out of a chroot(2): `..` of a directory outside of the root.
const ESCAPE: &str = "perl -e 'mkdir \"/d\"; chroot \"/d\" or die; chdir \"..\" for 1 .. 40; chroot \".\"; \
    print -e \"/srv/marker\" ? \"escaped\\n\" : \"held\\n\"'";

/// pivot_root(2) needs a mount point as "/", and leaves all that is above.
#[test]
fn a_payload_in_a_chroot_does_not_reach_the_host() {
    sandbox(|s| {
        prepare(s);
        let run = "env -u JC_STORE -u JC_STATE_DIR chroot c /programs/jc-run --network none -v /usr:/usr --image oci:/srv/image";
        for mount in [
            "",
            "mount --bind c c; mount --rbind /proc c/proc; mount --rbind /sys c/sys; mount --rbind /dev c/dev; mount --bind /usr c/usr",
        ] {
            s.sh(&format!(":; {mount}")).run().code(0);
            s.sh(&format!("{run} -- sh -c 'echo $(id -u) $(hostname | wc -c)'"))
                .run()
                .code(0)
                .stdout("0 13\n");
            s.sh(&format!("{run} -- {ESCAPE}")).run().code(0).stdout("held\n");
        }
        // The mounts of the host stay as they are.
        s.sh("test -e /proc/self/stat && test -e c/proc/self/stat && test -d /sys/fs")
            .run()
            .code(0);
        s.sh("umount -l c/usr c/dev c/sys c/proc; umount -l c; umount -l c/usr c/dev c/sys c/proc")
            .run();
    });
}

/// A table of surroundings: a line in front of `jc-run --network none`, its exit code, and a part of its output.
#[test]
fn each_surrounding_works_or_has_a_reason() {
    sandbox(|s| {
        prepare(s);
        s.sh("jc-pull -q oci:/srv/image").run().code(0);
        let inner = "-v /srv:/srv -v $(dirname $(command -v jc-run)):/programs --image oci:/srv/image -- env PATH=/programs:/bin JC_STORE=/tmp/s";
        let privileged = format!("jc-run --network none --privileged {inner}");
        let confined = format!("jc-run --network none {inner}");
        for (before, code, text) in [
            ("", 0, "uid=0"),
            ("unshare -Ur env JC_STATE_DIR=/tmp/st", 0, "uid=0"),
            ("unshare -Urm --propagation private env JC_STATE_DIR=/tmp/st", 0, "uid=0"),
            ("jc-unshare -U -r -- env JC_STATE_DIR=/tmp/st", 0, "uid=0"),
            (&privileged, 0, "uid=0"),
            (&confined, 125, "Operation not permitted"),
        ] {
            let ran = s.sh(&format!("{before} jc-run --network none --image oci:/srv/image")).run();
            let shown = format!("{before}\n{ran}");
            assert_eq!(ran.status().code(), Some(code), "{shown}");
            assert!(ran.out().contains(text) || ran.err().contains(text), "{shown}");
        }
        let forbidden = "jc-unshare -U -r -- sh -c 'echo 0 > /proc/sys/user/max_user_namespaces; \
            JC_STATE_DIR=/tmp/st exec jc-run --userns auto --uidmap 0:0:1 --network none --image oci:/srv/image'";
        let ran = s.sh(forbidden).run();
        assert!(!ran.status().success(), "{ran}");
        s.sh("umount -l c/usr c/dev c/sys c/proc").run();
    });
}
