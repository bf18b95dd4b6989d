//! A signal at a system call of a program of images, or a failed call: the store and the destination are whole, and the
//! next run of the program is complete. The variables are those of `faults.rs`.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use jc_tests::http::{FakeRegistry, Manners};
use jc_tests::image::{Image, Layout};
use jc_tests::layer::{Entry, Layer};
use jc_tests::line::{LONG, Line, survives};
use jc_tests::receiver::Receiver;
use jc_tests::roots::{busybox_image, busybox_root};
use jc_tests::{Sandbox, sandbox_for};

/// After a pull with a fault, the next pull is complete.
const PULLED: &str = "jc-pull -q IMAGE >/dev/null && jc-images --check && jc-rmi IMAGE &&
    rm -rf /srv/store";

#[test]
fn no_fault_breaks_a_pull_from_a_layout() {
    sandbox_for(LONG, |s| {
        Layout::new(s.path("layout")).image("x", &busybox_image());
        let words = vec!["jc-pull", "-q", "oci:/srv/layout:x"];
        let after = PULLED.replace("IMAGE", "oci:/srv/layout:x");
        survives(s, &Line { before: ":", words, after: &after, reports: false });
    });
}

#[test]
fn no_fault_breaks_a_pull_from_a_registry() {
    sandbox_for(LONG, |s| {
        let layout = Layout::new(s.path("layout"));
        layout.image("x", &busybox_image());
        let registry = FakeRegistry::serve(&layout, Manners::default());
        let image = registry.image("x");
        let words = vec!["jc-pull", "-q", "--timeout", "3", &image];
        let after = PULLED.replace("IMAGE", &image);
        survives(s, &Line { before: ":", words, after: &after, reports: false });
    });
}

#[test]
fn no_fault_breaks_the_removal_of_an_image() {
    sandbox_for(LONG, |s| {
        Layout::new(s.path("layout")).image("x", &busybox_image());
        let before = "jc-pull -q oci:/srv/layout:x >/dev/null";
        let words = vec!["jc-rmi", "oci:/srv/layout:x"];
        let after = PULLED.replace("IMAGE", "oci:/srv/layout:x");
        survives(s, &Line { before, words, after: &after, reports: false });
    });
}

#[test]
fn no_fault_breaks_a_list_of_images_during_a_pull() {
    sandbox_for(LONG, |s| {
        let layout = Layout::new(s.path("layout"));
        layout.image("x", &busybox_image());
        layout.image("y", &Image::new().layer(Layer::new().entry(Entry::file("y", "y"))));
        let before = "jc-pull -q oci:/srv/layout:y >/dev/null";
        let line = "jc-pull -q oci:/srv/layout:x >/dev/null & jc-images >/dev/null; wait";
        let after = PULLED.replace("IMAGE", "oci:/srv/layout:x");
        let words = vec!["sh", "-c", line];
        survives(s, &Line { before, words, after: &after, reports: false });
    });
}

/// An application of changes that a fault ends is complete after the next one, which removes all that the first one left.
#[test]
fn no_fault_breaks_an_application_of_changes() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        let script =
            "echo new >/etc/group; rm -r /var; mkdir -p /d/e; echo x >/d/e/f; ln /d/e/f /d/g";
        let line = format!("mkdir u && jc-rootfs --upper u root -- sh -c '{script}'");
        s.sh(&line).run().code(0);
        let before = "rm -rf /srv/t && cp -a /srv/root /srv/t";
        let words = vec!["jc-changes", "--apply", "/srv/t", "/srv/u"];
        let after = "jc-changes --apply /srv/t /srv/u && grep -q new /srv/t/etc/group &&
            grep -q x /srv/t/d/g && test ! -e /srv/t/var && ! ls -A /srv/t | grep -q jc-changes";
        survives(s, &Line { before, words, after, reports: false });
    });
}

/// A commit with a fault leaves no image, or a whole one, and the next one is complete.
#[test]
fn no_fault_breaks_a_commit() {
    sandbox_for(LONG, |s| {
        Layout::new(s.path("layout")).image("x", &busybox_image());
        s.sh("mkdir d && echo new >d/more && ln d/more d/same").run().code(0);
        let before = "rm -rf /srv/store && jc-pull -q oci:/srv/layout:x >/srv/record";
        let line = "exec jc-commit --dir /srv/d -t localhost/new </srv/record";
        let words = vec!["env", "SOURCE_DATE_EPOCH=1", "sh", "-c", line];
        let after = "jc-images --check && jc-commit --dir /srv/d </srv/record >/srv/new &&
            jc-run --network none </srv/new -- sh -c 'test /more -ef /same' && jc-images --check &&
            ! ls -A /srv/store/tmp | grep .";
        survives(s, &Line { before, words, after, reports: false });
    });
}

/// The image of a fault line of jc-push: a layer of a layout, and a new one, with the record in `new`.
fn committed(s: &Sandbox) {
    Layout::new(s.path("layout")).image("x", &busybox_image());
    s.sh("mkdir d && seq 99999 >d/more && jc-pull -q oci:/srv/layout:x |
            SOURCE_DATE_EPOCH=1 jc-commit --dir d -t localhost/new >new")
        .run()
        .code(0);
}

/// After a push with a fault, the next push is complete.
const PUSHED: &str = "jc-push -q DEST </srv/new && jc-pull -q --store /srv/other DEST >/dev/null &&
    jc-images --store /srv/other --check && jc-images --check && rm -rf /srv/other";

#[test]
fn no_fault_breaks_a_push_to_a_registry() {
    sandbox_for(LONG, |s| {
        committed(s);
        let registry = Receiver::start();
        // Each push goes to another repository, which has none of the blobs.
        let dest = format!("{}/a/b$n:t", registry.host);
        let line =
            format!("read n </srv/n; exec jc-push -q --retry 1 --timeout 3 {dest} </srv/new");
        let before = "read n </srv/n; echo $((n + 1)) >/srv/n; rm -f /srv/store/sums/*.sent";
        let after = format!("read n </srv/n; {}", PUSHED.replace("DEST", &dest));
        s.sh("echo 1 >n").run().code(0);
        let words = vec!["sh", "-c", &line];
        survives(s, &Line { before, words, after: &after, reports: false });
    });
}

#[test]
fn no_fault_breaks_a_push_to_a_layout_or_an_archive() {
    sandbox_for(LONG, |s| {
        committed(s);
        let line = "exec jc-push -q oci:/srv/out:t docker-archive:/srv/archive </srv/new";
        let again = "jc-push -q docker-archive:/srv/archive </srv/new &&
            jc-pull -q docker-archive:/srv/archive >/dev/null && ";
        let after = again.to_owned()
            + &PUSHED.replace("DEST", "oci:/srv/out:t")
            + " && ! ls -A /srv /srv/out /srv/out/blobs/sha256 | grep '[.]jc-'";
        let before = "rm -rf /srv/out /srv/archive";
        let words = vec!["sh", "-c", line];
        survives(s, &Line { before, words, after: &after, reports: false });
    });
}
