//! `jc-pull` of damaged, false and hostile images: no part of them may be visible.

#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use jc_tests::image::{Built, Image, Layout, Lie, Packing};
use jc_tests::layer::{Entry, Layer};
use jc_tests::pulled::{layer_dirs, paths};
use jc_tests::roots::names;
use jc_tests::{Sandbox, sandbox, tree};
use serde_json::Value;

/// A layer with enough content that its middle is in the middle of a file.
fn layer() -> Layer {
    let content: Vec<u8> = (0..200_000u32).map(|i| ((i * 7) >> 3).to_le_bytes()[0]).collect();
    Layer::new()
        .entry(Entry::dir("etc/"))
        .entry(Entry::file("etc/big", content))
        .entry(Entry::file("etc/last", "last"))
}

/// A good image, which shares no layer with the bad ones.
fn other(s: &Sandbox) -> String {
    let layout = Layout::new(s.path(&format!("other-{}", names(&s.path("")).len())));
    layout.image("x", &Image::new().layer(Layer::new().entry(Entry::file("other", "other"))));
    format!("oci:{}", layout.dir().display())
}

/// A bad image is refused by an empty store and by a store with another image. The good image, of which the bad one
/// is a copy, is then pulled without an error.
fn refused(s: &Sandbox, bad: &str) {
    fs::create_dir_all(s.store()).unwrap();
    fs::remove_dir_all(s.store()).unwrap();
    s.refuse(bad);
    s.pull(&other(s));
    s.refuse(bad);
    let good = Layout::new(s.path(&format!("good-{}", names(&s.path("")).len())));
    good.image("x", &image());
    let layers = layer_dirs(&s.pull(&format!("oci:{}", good.dir().display())));
    assert_eq!(fs::read(layers[0].join("etc/last")).unwrap(), b"last");
}

fn image() -> Image {
    Image::new().layer(layer())
}

/// Damages one part of a good image in a layout of its own, and checks that the image is refused.
fn damaged(
    s: &Sandbox,
    packing: Packing,
    part: fn(&Built) -> &Value,
    how: impl FnOnce(&mut Vec<u8>),
) {
    let layout = Layout::new(s.path(&format!("bad-{}", names(&s.path("")).len())));
    let written = layout.image("x", &Image::new().packed(layer(), packing));
    layout.damage(part(&written), how);
    refused(s, &format!("oci:{}", layout.dir().display()));
}

fn first_layer(written: &Built) -> &Value {
    &written.layers[0]
}

#[test]
fn a_flipped_byte_anywhere_is_refused() {
    sandbox(|s| {
        for packing in [Packing::Gzip, Packing::Plain] {
            for at in [|_| 5, |n| n / 2, |n| n - 1, |n| n - 6] as [fn(usize) -> usize; 4] {
                damaged(s, packing, first_layer, |bytes| {
                    let i = at(bytes.len());
                    bytes[i] ^= 0x10;
                });
            }
        }
        for part in [(|w| &w.config) as fn(&Built) -> &Value, |w| &w.descriptor] {
            damaged(s, Packing::Gzip, part, |bytes| bytes[100] ^= 1);
        }
    });
}

#[test]
fn a_truncated_or_padded_layer_is_refused() {
    sandbox(|s| {
        for packing in [Packing::Gzip, Packing::Plain] {
            damaged(s, packing, first_layer, |bytes| bytes.truncate(bytes.len() / 2));
            damaged(s, packing, first_layer, |bytes| bytes.truncate(bytes.len() - 1));
            damaged(s, packing, first_layer, Vec::clear);
            damaged(s, packing, first_layer, |bytes| bytes.push(0));
            damaged(s, packing, first_layer, |bytes| bytes.extend([0; 4096]));
        }
    });
}

#[test]
fn a_wrong_size_or_diff_id_is_refused() {
    sandbox(|s| {
        let layout = Layout::new(s.path("image"));
        for (tag, lie) in [
            ("longer", Lie::LayerSize(1)),
            ("shorter", Lie::LayerSize(-1)),
            ("negative", Lie::LayerSize(-1_000_000_000)),
            ("diff-id", Lie::DiffId),
            ("more-diff-ids", Lie::ExtraDiffId),
            ("config-size", Lie::ConfigSize),
        ] {
            layout.image(tag, &image().lie(lie));
            refused(s, &format!("oci:image:{tag}"));
        }
        // The true layer in the store does not make these images valid.
        for tag in ["longer", "shorter", "diff-id", "more-diff-ids", "config-size", "negative"] {
            s.refuse(&format!("oci:image:{tag}"));
        }
    });
}

/// Sizes and digests are right, and the archive itself is broken.
#[test]
fn an_archive_that_breaks_off_is_refused() {
    sandbox(|s| {
        let layout = Layout::new(s.path("image"));
        let tar = layer().into_tar();
        for (tag, bytes) in [
            ("in-a-file", tar[..100_000].to_vec()),
            ("in-a-header", tar[..512 + 100].to_vec()),
            ("no-tar", b"this is no archive".repeat(100)),
        ] {
            layout.image(tag, &Image::new().layer(Layer::raw(bytes.clone())));
            layout.image(
                &format!("{tag}-plain"),
                &Image::new().packed(Layer::raw(bytes), Packing::Plain),
            );
        }
        let mut sum = tar;
        sum[200] ^= 1;
        layout.image("checksum", &Image::new().layer(Layer::raw(sum)));
        for tag in [
            "in-a-file",
            "in-a-file-plain",
            "in-a-header",
            "in-a-header-plain",
            "no-tar",
            "no-tar-plain",
            "checksum",
        ] {
            refused(s, &format!("oci:image:{tag}"));
        }
    });
}

#[test]
fn a_missing_blob_and_a_missing_layout_are_errors() {
    sandbox(|s| {
        let layout = Layout::new(s.path("image"));
        for tag in ["layer", "config", "manifest"] {
            let content = Layer::new().entry(Entry::file("of", tag));
            let written = layout.image(tag, &Image::new().layer(content));
            let gone = match tag {
                "layer" => &written.layers[0],
                "config" => &written.config,
                _ => &written.descriptor,
            };
            fs::remove_file(layout.blob_path(gone)).unwrap();
        }
        for tag in ["layer", "config", "manifest"] {
            refused(s, &format!("oci:image:{tag}"));
        }
        for text in ["", "{", "[]", "{\"schemaVersion\":2}", "{\"manifests\":[]}"] {
            fs::write(layout.dir().join("index.json"), text).unwrap();
            s.refuse("oci:image:x");
        }
        s.refuse("oci:/etc");
        s.refuse("oci:/nonexistent");
    });
}

/// The files around the store, which no layer may change.
fn surroundings(s: &Sandbox) -> (BTreeSet<PathBuf>, String) {
    let mut all = paths(&s.path(""));
    all.retain(|path| !path.starts_with(s.store()));
    let passwd = format!("{:?}", tree::manifest(&s.path("victim")));
    (all, passwd)
}

/// Pulls an image with this layer on top of a good layer. The image may be refused, and must not change other files.
fn contained(s: &Sandbox, name: &str, layer: Layer) -> Option<PathBuf> {
    let victim = s.path("victim");
    if !victim.exists() {
        fs::create_dir(&victim).unwrap();
        fs::write(victim.join("passwd"), "mine").unwrap();
    }
    let layout = Layout::new(s.path(&format!("hostile-{name}")));
    let base = Layer::new().entry(Entry::dir("bin/")).entry(Entry::file("bin/sh", "base"));
    layout.image("x", &Image::new().layer(base).layer(layer));
    let before = surroundings(s);
    let ran = s.jc("jc-pull").arg("-q").arg(format!("oci:{}", layout.dir().display())).run();
    let after = surroundings(s);
    let new: Vec<&PathBuf> = after.0.difference(&before.0).collect();
    assert!(new.is_empty(), "{name}: {new:?}\n{ran}");
    assert_eq!(after.1, before.1, "{name}\n{ran}");
    assert_eq!(
        s.sh("find /tmp /run /var/tmp -name x -o -name passwd | grep -v harness").run().out(),
        ""
    );
    if ran.status().success() {
        let record: Value = serde_json::from_str(&ran.out()).unwrap();
        return Some(layer_dirs(&record).remove(1));
    }
    ran.code(1).stdout("").fails_as("jc-pull", "");
    None
}

#[test]
fn a_name_that_leads_out_is_refused() {
    sandbox(|s| {
        for (i, name) in [
            "../../x",
            "../x",
            "a/../../../x",
            "..",
            "../../../../../../../../srv/victim/passwd",
            "bin/../../../victim/passwd",
            "../.wh.x",
            "../.wh..wh..opq",
        ]
        .into_iter()
        .enumerate()
        {
            let of = |kind: &str| format!("{i}-{kind}");
            contained(s, &of("file"), Layer::new().entry(Entry::file(name, "evil")));
            contained(s, &of("dir"), Layer::new().entry(Entry::dir(name)));
            contained(s, &of("link"), Layer::new().entry(Entry::symlink(name, "/etc")));
            let source = Layer::new().entry(Entry::file("f", "evil"));
            contained(s, &of("hard"), source.entry(Entry::hardlink(name, "f")));
        }
        // An absolute name means the root of the layer.
        let layer = Layer::new().entry(Entry::file("/srv/victim/passwd", "evil"));
        if let Some(dir) = contained(s, "absolute", layer) {
            assert_eq!(fs::read(dir.join("srv/victim/passwd")).unwrap(), b"evil");
        }
    });
}

#[test]
fn a_link_that_leads_out_is_not_followed() {
    sandbox(|s| {
        for (i, target) in ["/srv/victim", "../../../victim", "/tmp/out", "/proc/1/root/srv/victim"]
            .into_iter()
            .enumerate()
        {
            let link = || Layer::new().entry(Entry::symlink("etc", target));
            let of = |kind: &str| format!("{i}-{kind}");
            contained(s, &of("file"), link().entry(Entry::file("etc/passwd", "evil")));
            contained(s, &of("dir"), link().entry(Entry::dir("etc/").mode(0o777).owner(9, 9)));
            contained(s, &of("below"), link().entry(Entry::dir("etc/new/").mode(0o777)));
            contained(s, &of("whiteout"), link().entry(Entry::file("etc/.wh.passwd", "")));
            contained(s, &of("opaque"), link().entry(Entry::file("etc/.wh..wh..opq", "")));
            contained(s, &of("device"), link().entry(Entry::device("etc/passwd", 1, 3)));
            let hard = link().entry(Entry::hardlink("x", "etc/passwd"));
            contained(s, &of("hard"), hard.entry(Entry::file("x", "evil").mode(0o777)));
            contained(s, &of("link"), link().entry(Entry::symlink("etc/passwd", "evil")));
        }
        // The known attack: a file is written through a symbolic link. The write stays inside the layer, or fails.
        let layer = Layer::new()
            .entry(Entry::file("../../x", "evil"))
            .entry(Entry::symlink("etc", "/tmp/out"))
            .entry(Entry::file("etc/passwd", "evil"));
        contained(s, "story", layer);
        assert!(!fs::exists("/tmp/out").unwrap() && !s.path("x").exists());
    });
}

#[test]
fn a_hard_link_to_a_file_outside_the_layer_is_refused() {
    sandbox(|s| {
        for (i, target) in
            ["/srv/victim/passwd", "../../../victim/passwd", "../../../../../srv/victim/passwd"]
                .into_iter()
                .enumerate()
        {
            let layer = Layer::new()
                .entry(Entry::hardlink("stolen", target))
                .entry(Entry::file("stolen", "evil").mode(0o777).owner(9, 9));
            if let Some(dir) = contained(s, &i.to_string(), layer) {
                assert_ne!(fs::read(dir.join("stolen")).unwrap(), b"mine");
            }
        }
    });
}

/// overlayfs trusts its own attributes, so a layer must not set them.
#[test]
fn an_attribute_of_overlayfs_is_not_a_layers_to_set() {
    sandbox(|s| {
        for (i, (name, value)) in [
            ("trusted.overlay.opaque", &b"y"[..]),
            ("trusted.overlay.redirect", b"/../../../../srv/victim"),
            ("trusted.overlay.metacopy", b""),
            ("user.overlay.opaque", b"y"),
        ]
        .into_iter()
        .enumerate()
        {
            let layer = Layer::new().entry(Entry::dir("d/").xattr(name, value));
            if let Some(dir) = contained(s, &i.to_string(), layer) {
                assert!(!tree::xattrs(&dir.join("d")).contains_key(name), "{name}");
            }
        }
        // A device 0/0 is a whiteout for overlayfs, without a whiteout in the tar.
        let layer = Layer::new().entry(Entry::device("bin", 0, 0));
        assert_eq!(contained(s, "device", layer), None);
    });
}

#[test]
fn entries_that_get_in_each_others_way_stay_inside() {
    sandbox(|s| {
        let file = || Entry::file("a", "file");
        for (i, entries) in [
            vec![file(), Entry::dir("a/")],
            vec![file(), Entry::file("a/b", "below a file")],
            vec![Entry::dir("a/"), Entry::file("a/b", "x"), file()],
            vec![
                Entry::dir("a/"),
                Entry::symlink("a", "/srv/victim"),
                Entry::file("a/passwd", "evil"),
            ],
            vec![Entry::symlink("a", "a"), Entry::file("a/b", "loop")],
            vec![Entry::symlink("a", "b"), Entry::symlink("b", "a"), Entry::file("a/b", "loop")],
            vec![Entry::hardlink("a", "a")],
            vec![Entry::fifo("a"), file()],
            vec![file(), file(), file()],
            vec![Entry::file(".wh.", "")],
            vec![Entry::file(".wh..", "")],
            vec![Entry::file(".wh...", "")],
            vec![Entry::file("a/.wh..wh.b", "")],
            vec![Entry::file("", "no name")],
            vec![
                Entry::file(".", "x"),
                Entry::symlink("./", "/srv/victim"),
                Entry::symlink("/", "/srv/victim"),
            ],
            vec![Entry::dir("./").mode(0o700).owner(9, 9)],
            vec![Entry::file(&"long/".repeat(2000), "too long a path")],
            vec![Entry::file(&"l".repeat(300), "too long a name")],
        ]
        .into_iter()
        .enumerate()
        {
            contained(s, &i.to_string(), Layer::new().extend(entries));
        }
    });
}
