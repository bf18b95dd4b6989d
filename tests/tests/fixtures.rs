//! The images of the fixtures, which other programs must accept too.

#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use jc_tests::http::{FakeRegistry, Manners};
use jc_tests::image::{Format, Image, Layout, Lie, Packing};
use jc_tests::layer::{Entry, Layer};
use jc_tests::registry::Registry;
use jc_tests::roots::{busybox_layer, busybox_root};
use jc_tests::{Sandbox, sandbox, tree};

fn odd_layer() -> Layer {
    Layer::new()
        .entry(Entry::dir("d/").mode(0o2750).owner(70_000, 7))
        .entry(Entry::file(&format!("d/{}", "long".repeat(40)), "x").mtime(5))
        .entry(Entry::hardlink("d/same", &format!("d/{}", "long".repeat(40))))
        .entry(Entry::symlink("d/link", "/etc"))
        .entry(Entry::device("d/null", 1, 3))
        .entry(Entry::fifo("d/fifo"))
        .entry(Entry::file("d/x", "y").xattr("user.colour", b"red"))
}

/// Unpacks the image of a layout with umoci.
fn umoci(s: &Sandbox, layout: &Layout, tag: &str) {
    let image = format!("{}:{tag}", layout.dir().display());
    s.cmd("umoci").args(["unpack", "--image", &image, "bundle"]).run().code(0);
}

#[test]
fn umoci_unpacks_what_the_builder_says() {
    sandbox(|s| {
        let layout = Layout::new(s.path("image"));
        layout.image("x", &Image::new().layer(busybox_layer()).packed(odd_layer(), Packing::Plain));
        umoci(s, &layout, "x");
        let d = s.path("bundle/rootfs/d");
        let stat = |name: &str| fs::symlink_metadata(d.join(name)).unwrap();
        assert_eq!((stat("").mode(), stat("").uid(), stat("").gid()), (0o42750, 70_000, 7));
        let long = "long".repeat(40);
        assert_eq!((stat(&long).mtime(), stat(&long).ino()), (5, stat("same").ino()));
        assert_eq!((stat("null").mode(), stat("null").rdev()), (0o20600, 0x103));
        assert_eq!(stat("fifo").mode(), 0o10600);
        assert_eq!(fs::read_link(d.join("link")).unwrap().to_str(), Some("/etc"));
        assert_eq!(tree::xattrs(&d.join("x"))["user.colour"], b"red");
        s.cmd("chroot").args(["bundle/rootfs", "/bin/echo", "hi"]).run().stdout("hi\n");
    });
}

#[test]
fn a_registry_takes_the_builders_images() {
    sandbox(|s| {
        let registry = Registry::empty(s);
        let layout = Layout::new(s.path("image"));
        let written = layout.image("x", &Image::new().layer(busybox_layer()));
        registry.push(s, &layout, "x", "busybox:oci", Format::Oci);
        assert!(registry.blob_path(&written.descriptor).exists());
        assert!(registry.blob_path(&written.layers[0]).exists());
        registry.push(s, &layout, "x", "busybox:docker", Format::Docker);
        layout.index("many", &["amd64", "arm64"].map(|a| Image::new().architecture(a)));
        registry.push(s, &layout, "many", "a/b:many", Format::Oci);
    });
}

#[test]
fn the_prepared_registry_has_both_formats() {
    sandbox(|s| {
        let registry = Registry::prepared(s);
        for (image, media) in [
            ("debian:latest", "application/vnd.oci.image.config.v1+json"),
            ("debian:docker", "application/vnd.docker.container.image.v1+json"),
            ("busybox:latest", "application/vnd.oci.image.config.v1+json"),
            ("busybox:docker", "application/vnd.docker.container.image.v1+json"),
        ] {
            let image = format!("docker://{}/{image}", registry.address());
            let args = ["inspect", "--raw", "--tls-verify=false", &image];
            let ran = s.cmd("skopeo").args(args).run();
            assert!(ran.out().contains(media), "{ran}");
            ran.code(0);
        }
    });
}

#[test]
fn skopeo_notices_every_lie_that_it_checks() {
    sandbox(|s| {
        let layout = Layout::new(s.path("image"));
        let copy = |tag: &str| {
            let source = format!("oci:{}:{tag}", layout.dir().display());
            s.cmd("skopeo").args(["copy", "-q", "--insecure-policy", &source, "dir:out"]).run()
        };
        let image = || Image::new().layer(odd_layer());
        layout.image("good", &image());
        copy("good").code(0);
        layout.image("config", &image().lie(Lie::ConfigSize));
        copy("config").code(1);
        let written = layout.image("damaged", &image().config(serde_json::json!({})));
        layout.damage(&written.layers[0], |bytes| bytes[20] ^= 1);
        copy("damaged").code(1);
    });
}

#[test]
fn the_fake_registry_is_one_to_skopeo() {
    sandbox(|s| {
        let layout = Layout::new(s.path("image"));
        layout.image("x", &Image::new().layer(odd_layer()).format(Format::Docker));
        let copy = |manners| {
            let registry = FakeRegistry::serve(&layout, manners);
            let source = format!("docker://{}", registry.image("x"));
            let args = ["copy", "-q", "--insecure-policy", "--src-tls-verify=false"];
            (s.cmd("skopeo").args(args).args([&source, "dir:out"]).run(), registry)
        };
        let (ran, registry) =
            copy(Manners { token: true, redirect_blobs: true, ..Manners::default() });
        ran.code(0);
        let asked = registry.requests();
        assert!(asked.iter().any(|r| r.path.starts_with("/token?")), "{asked:?}");
        assert!(!registry.redirected().is_empty(), "{asked:?}");
        for manners in [
            Manners { cut_blobs: Some(10), ..Manners::default() },
            Manners { pad_blobs: 10, ..Manners::default() },
            Manners { manifest_status: Some(503), ..Manners::default() },
        ] {
            copy(manners).0.code(1);
        }
    });
}

#[test]
fn a_manifest_of_a_tree_sees_every_change() {
    sandbox(|s| {
        let root = busybox_root(s, "root");
        let file = root.join("etc/passwd");
        fs::create_dir(root.join("d")).unwrap();
        symlink("a", root.join("d/link")).unwrap();
        for change in [
            "chmod u+s bin/busybox",
            "chown 1 etc/passwd",
            "touch -h d/link",
            "touch etc",
            "mkdir x",
            "rm d/link",
            "mkfifo d/p",
            "mknod d/n c 1 3",
            "ln etc/group etc/group2",
            "printf x | dd of=etc/passwd conv=notrunc status=none; touch -r d etc/passwd",
        ] {
            s.cmd("touch").args(["-r", "root/d"]).arg(&file).run().code(0);
            let before = tree::manifest(&root);
            assert_eq!(tree::changes(&before, &tree::manifest(&root)), "");
            s.sh(&format!("cd root; {change}")).run().code(0);
            assert_ne!(tree::changes(&before, &tree::manifest(&root)), "", "{change}");
        }
        let before = tree::manifest(&root);
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(&file, "user.a", b"b", flags).unwrap();
        assert_ne!(tree::changes(&before, &tree::manifest(&root)), "");
    });
}
