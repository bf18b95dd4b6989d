//! `jc-pull` by an ordinary user, and layers in overlays of user namespaces.

#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::MetadataExt;

use jc_tests::image::{Image, Layout};
use jc_tests::layer::{Entry, Layer};
use jc_tests::pulled::{layer_dirs, record};
use jc_tests::roots::busybox_layer;
use jc_tests::{Ann, Sandbox, sandbox};

const TOOL: &str = "jc-pull";

/// An image with all properties that differ without root: owners, whiteouts, opaque directories, file capabilities.
/// Directories named `hidden` show one line.
fn image(s: &Sandbox) -> String {
    let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let base = busybox_layer()
        .entry(Entry::dir("gone/"))
        .entry(Entry::file("gone/file", ""))
        .entry(Entry::dir("opaque/"))
        .entry(Entry::file("opaque/below", ""))
        .entry(Entry::dir("kept/"))
        .entry(Entry::file("kept/of-web", "x").owner(33, 34).mode(0o4751))
        .entry(Entry::file("kept/removed", ""))
        .entry(Entry::file("kept/capable", "").xattr("security.capability", capability));
    let top = Layer::new()
        .entry(Entry::file(".wh.gone", ""))
        .entry(Entry::file("opaque/.wh..wh..opq", ""))
        .entry(Entry::file("opaque/above", ""))
        .entry(Entry::file("kept/.wh.removed", ""))
        .entry(Entry::dir("only/").mode(0o700).owner(33, 34))
        .entry(Entry::file("only/.wh.never", ""));
    let layout = Layout::new(s.path("image"));
    layout.image("x", &Image::new().layer(base).layer(top));
    "oci:/srv/image".to_owned()
}

const LOOK: &str = "ls -d /gone 2>&1; ls /opaque /kept; ls -A /only; ls -ln /kept/of-web";
const LOOKS: &str = "ls: /gone: No such file or directory\n/kept:\ncapable\nof-web\n\n\
    /opaque:\nabove\n-rwsr-x--x    1";

/// The link that enters the root of a record.
fn rootfs(record: &serde_json::Value) -> String {
    let layers = layer_dirs(record).into_iter().map(|dir| format!("--layer {}", dir.display()));
    format!("jc-rootfs {} --", layers.collect::<Vec<_>>().join(" "))
}

#[test]
fn a_range_of_users_gives_true_owners() {
    sandbox(|s| {
        let image = image(s);
        let ann = Ann::with_range(s);
        let ran = ann.sh(&format!("jc-unshare -U --map-auto -- {TOOL} -q {image}")).run();
        let record = record(&ran);
        let layers = layer_dirs(&record);
        // Without the link jc-pull uses the same user namespace, and finds the image there.
        ann.sh(&format!("{TOOL} -q {image}")).run().code(0).stdout(&ran.out());
        assert!(layers[0].starts_with("/srv/ann/.local/share/jc/layers"), "{layers:?}");
        let of_web = fs::symlink_metadata(layers[0].join("kept/of-web")).unwrap();
        assert_eq!((of_web.uid(), of_web.gid(), of_web.mode()), (200_032, 200_033, 0o104751));
        let chain = format!("jc-unshare -U --map-auto -- {} sh -c '{LOOK}'", rootfs(&record));
        let shown = ann.sh(&chain).run().code(0).out();
        assert!(shown.starts_with(LOOKS) && shown.contains(" 33       34 "), "{shown}");
        for tool in ["jc-images --check", "jc-images --json", "jc-rmi --unused"] {
            ann.sh(&format!("jc-unshare -U --map-auto -- {tool}")).run().code(0);
            ann.sh(tool).run().code(0);
        }
        ann.sh(&format!("jc-rmi {image}")).run().code(0).stderr("");
        assert!(!layers[0].exists());
        // jc-pull fetches the image again, in its own user namespace.
        ann.sh(&format!("{TOOL} -q {image}")).run().code(0).stdout(&ran.out());
        let again = fs::symlink_metadata(layers[0].join("kept/of-web")).unwrap();
        assert_eq!((again.uid(), again.gid(), again.mode()), (200_032, 200_033, 0o104751));
    });
}

#[test]
fn root_alone_has_no_owners_to_give() {
    sandbox(|s| {
        let image = image(s);
        let ann = Ann::with_range(s);
        let alone = format!("jc-unshare -U --map-root -- {TOOL} -q");
        let ran = ann.sh(&format!("{alone} {image}")).run().code(1);
        assert!(ran.err().contains("--ignore-chown"), "{ran}");
        ran.stdout("").fails_as(TOOL, ": Invalid argument");
        let without = record(&ann.sh(&format!("{alone} --ignore-chown {image}")).run());
        let layers = layer_dirs(&without);
        let of_web = fs::symlink_metadata(layers[0].join("kept/of-web")).unwrap();
        assert_eq!((of_web.uid(), of_web.gid(), of_web.mode()), (Ann::ID, Ann::ID, 0o104751));
        let chain = format!("jc-unshare -U --map-root -- {} sh -c '{LOOK}'", rootfs(&without));
        let shown = ann.sh(&chain).run().code(0).out();
        assert!(shown.starts_with(LOOKS) && shown.contains(" 0        0 "), "{shown}");
        // Layers without owners are not used in place of layers with owners.
        let auto = format!("jc-unshare -U --map-auto -- {TOOL} -q");
        let with = layer_dirs(&record(&ann.sh(&format!("{auto} {image}")).run()));
        assert!(with.iter().all(|layer| !layers.contains(layer)), "{with:?}");
        // The choice of root to ignore owners does not last either.
        let ran = s.jc(TOOL).args(["-q", "--ignore-chown", &image]).run();
        let ignored = layer_dirs(&record(&ran));
        assert_eq!(fs::metadata(ignored[0].join("kept/of-web")).unwrap().uid(), 0);
        let true_ones = layer_dirs(&s.pull(&image));
        assert_eq!(fs::metadata(true_ones[0].join("kept/of-web")).unwrap().uid(), 33);
    });
}

#[test]
fn an_ordinary_user_gets_a_hint() {
    sandbox(|s| {
        let image = image(s);
        let ann = Ann::with_range(s);
        // The user has no subordinate IDs, so files cannot have other owners.
        s.sh("mount --bind /dev/null /etc/subuid").run().code(0);
        let ran = ann.sh(&format!("{TOOL} -q {image}")).run().code(1);
        assert!(ran.err().contains("jc-unshare -U --map-auto -- jc-pull"), "{ran}");
        ran.stdout("").fails_as(TOOL, "cannot unpack layers as an ordinary user");
        // Documents without layers need no root.
        ann.sh(&format!("{TOOL} --print config {image}")).run().code(0);
        ann.sh(&format!("{TOOL} -q --ignore-chown {image}")).run().code(0);
        ann.sh(&format!("jc-rmi {image}")).run().code(0).stderr("");
        s.sh("umount /etc/subuid").run().code(0);
        // No process of a user namespace could use a device.
        let layout = Layout::new(s.path("device"));
        layout.image("x", &Image::new().layer(Layer::new().entry(Entry::device("null", 1, 3))));
        let chain = format!("jc-unshare -U --map-auto -- {TOOL} -q oci:/srv/device");
        let ran = ann.sh(&chain).run().code(0);
        assert!(ran.err().contains("null: device nodes are left out"), "{ran}");
    });
}

/// Layers of root in a user namespace: hidden files stay hidden.
#[test]
fn roots_layers_do_for_both_kinds_of_overlays() {
    sandbox(|s| {
        let record = s.pull(&image(s));
        for namespace in ["", "jc-unshare -U --map-users 0:0:65536 --map-groups 0:0:65536 -- "] {
            let script = format!("{namespace}{} sh -c '{LOOK}'", rootfs(&record));
            let shown = s.sh(&script).run().code(0).out();
            assert!(shown.starts_with(LOOKS) && shown.contains(" 33       34 "), "{shown}");
        }
    });
}

/// The user's own files belong to root of the image, and files of subordinate IDs keep their owners.
#[test]
fn an_ordinary_user_makes_and_sends_an_image() {
    sandbox(|s| {
        let image = image(s);
        let ann = Ann::with_range(s);
        let base = ann.sh(&format!("{TOOL} -q {image}")).run().code(0).out();
        ann.sh("mkdir -p d/etc && echo hello >d/etc/motd").run().code(0);
        let new = ann.sh("jc-commit --dir d -t localhost/x").input(base).run().code(0);
        let line = new.out();
        ann.sh("jc-push -q oci:out oci-archive:x.tar").input(line.as_str()).run().code(0);
        fs::remove_dir_all(s.path("image")).unwrap();
        ann.sh("jc-push -q --recompress docker-archive:d.tar").input(line).run().code(0);
        for name in ["oci:ann/out", "oci-archive:ann/x.tar", "docker-archive:ann/d.tar"] {
            let layers = layer_dirs(&s.pull(name));
            let owner = |layer: usize, path: &str| {
                let stat = fs::symlink_metadata(layers[layer].join(path)).unwrap();
                (stat.uid(), stat.gid())
            };
            assert_eq!(
                (owner(0, "kept/of-web"), owner(2, "etc/motd")),
                ((33, 34), (0, 0)),
                "{name}"
            );
        }
        ann.sh("jc-rmi localhost/x").run().code(0);
    });
}
