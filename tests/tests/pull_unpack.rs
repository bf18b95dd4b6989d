//! Unpacked layers: exact, in the form that overlayfs reads, and never outside their own directory.

#![cfg(target_os = "linux")]

use std::cell::Cell;
use std::ffi::CString;
use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use jc_tests::image::{Built, Packed};
use jc_tests::layer::{Entry, Layer};
use jc_tests::pulled::{Store, layer_dirs};
use jc_tests::sandbox;

/// Pulls an image with these layers. Returns their directories.
fn unpack(store: &Store, tars: &[Vec<u8>]) -> Vec<PathBuf> {
    let records = store.pull(&["-q", &layout(store, tars)]);
    layer_dirs(&records[0])
}

fn layout(store: &Store, tars: &[Vec<u8>]) -> String {
    let layers: Vec<Packed> = tars.iter().map(|t| Packed::gzip(t)).collect();
    store.layout("image", &Built::of(&layers))
}

fn stat(root: &Path, path: &str) -> Metadata {
    std::fs::symlink_metadata(root.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let path = CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    let mut value = [0; 256];
    let n = rustix::fs::lgetxattr(path.as_c_str(), name, &mut value[..]).ok()?;
    Some(value[..n].to_vec())
}

fn is_whiteout(stat: &Metadata) -> bool {
    stat.file_type().is_char_device() && stat.rdev() == 0
}

#[test]
fn entries_come_out_exactly() {
    sandbox(|s| {
        let full = |entry: Entry, mode| entry.mode(mode).owner(1000, 70000).mtime(1_000_000_000);
        let cap = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0".as_slice();
        let tar = Layer::new()
            .entry(full(Entry::dir("./"), 0o750))
            .entry(full(Entry::dir("./d"), 0o7777))
            .pax(&[("mtime", b"-1.25"), ("SCHILY.xattr.user.a", b"1\n2")])
            .entry(full(Entry::file("d/setuid", ""), 0o6755))
            .pax(&[("SCHILY.xattr.security.capability", cap)])
            .entry(full(Entry::file("d/capable", ""), 0o755))
            .entry(full(Entry::hardlink("d/link", "./d/setuid"), 0))
            .entry(full(Entry::symlink("d/sym", "/no/where"), 0o777))
            .pax(&[("path", b"d/caf\xe9 \n")])
            .entry(full(Entry::fifo("fifo"), 0o600))
            .entry(full(Entry::device("d/char", 7, 300), 0o620))
            .entry(full(Entry::block_device("d/block", 7, 300), 0o660))
            .file("twice", "first")
            .file("twice", "second")
            .directory("changes", 0o755)
            .file("changes/x", "")
            .file("changes", "now a file")
            .into_tar();
        let store = Store::new(s);
        let at = unpack(&store, &[tar]).remove(0);
        let non_utf8 = std::fs::read_dir(at.join("d"))
            .unwrap()
            .any(|e| e.unwrap().file_name().as_encoded_bytes() == b"caf\xe9 \n");
        assert!(non_utf8);
        for (path, mode) in [
            ("", 0o040_750),
            ("d", 0o047_777),
            ("d/setuid", 0o106_755),
            ("d/capable", 0o100_755),
            ("d/sym", 0o120_777),
            ("d/char", 0o020_620),
            ("d/block", 0o060_660),
        ] {
            let s = stat(&at, path);
            assert_eq!(s.mode(), mode, "{path}: {:o}", s.mode());
            assert_eq!((s.uid(), s.gid()), (1000, 70000), "{path}");
            if path != "d/setuid" {
                assert_eq!((s.mtime(), s.mtime_nsec()), (1_000_000_000, 0), "{path}");
            }
        }
        let setuid = stat(&at, "d/setuid");
        assert_eq!((setuid.mtime(), setuid.mtime_nsec()), (-2, 750_000_000));
        assert_eq!(setuid.ino(), stat(&at, "d/link").ino());
        assert_eq!(xattr(&at.join("d/setuid"), "user.a").unwrap(), b"1\n2");
        assert_eq!(xattr(&at.join("d/capable"), "security.capability").unwrap(), cap);
        assert_eq!(stat(&at, "d/char").rdev(), stat(&at, "d/block").rdev());
        assert_eq!(std::fs::read_link(at.join("d/sym")).unwrap(), Path::new("/no/where"));
        assert_eq!(std::fs::read_to_string(at.join("twice")).unwrap(), "second");
        assert_eq!(std::fs::read_to_string(at.join("changes")).unwrap(), "now a file");
    });
}

#[test]
fn whiteouts_and_opaque_directories_are_overlayfs_own() {
    sandbox(|s| {
        let tar = Layer::new()
            .directory("./", 0o755)
            .file(".wh.gone", "")
            .directory("a/", 0o755)
            .file("a/.wh..wh..opq", "")
            .file("a/new", "")
            .file("b", "")
            .file(".wh.b", "")
            .file(".wh.c", "")
            .file("c/x", "")
            .file(".wh.d", "")
            .directory("d", 0o755)
            .file(".wh.e", "")
            .file("e", "")
            .into_tar();
        let store = Store::new(s);
        let at = unpack(&store, &[tar]).remove(0);
        assert!(is_whiteout(&stat(&at, "gone")));
        for opaque in ["a", "c", "d"] {
            for name in ["trusted.overlay.opaque", "user.overlay.opaque"] {
                let value = xattr(&at.join(opaque), name);
                assert_eq!(value.as_deref(), Some(b"y".as_slice()), "{opaque} {name}");
            }
        }
        for file in ["a/new", "b", "c/x", "e"] {
            assert!(stat(&at, file).is_file(), "{file}");
        }
    });
}

#[test]
fn directories_that_a_layer_does_not_list_are_as_beneath() {
    sandbox(|s| {
        let owned = |path, mode, uid| Entry::dir(path).mode(mode).owner(uid, uid).mtime(77);
        let base = Layer::new()
            .entry(owned("./", 0o711, 5))
            .entry(owned("a", 0o700, 6))
            .pax(&[("SCHILY.xattr.user.k", b"v")])
            .entry(owned("a/b", 0o1777, 7))
            .entry(owned("hidden", 0o700, 8))
            .into_tar();
        let middle = Layer::new().entry(owned("./a/", 0o750, 9)).file(".wh.hidden", "").into_tar();
        let top = Layer::new().file("a/b/c", "").file("hidden/x", "").file("new/x", "").into_tar();
        let store = Store::new(s);
        let at = unpack(&store, &[base, middle, top.clone()]);
        for (layer, path, mode, uid) in [
            (1, "", 0o711, 5),
            (2, "", 0o711, 5),
            (2, "a", 0o750, 9),
            (2, "a/b", 0o1777, 7),
            (2, "hidden", 0o755, 0),
            (2, "new", 0o755, 0),
        ] {
            let s = stat(&at[layer], path);
            assert_eq!((s.mode() & 0o7777, s.uid(), s.gid()), (mode, uid, uid), "{layer} {path}");
            assert_eq!(s.mtime(), if uid == 0 { 0 } else { 77 }, "{layer} {path}");
        }
        assert_eq!(xattr(&at[2].join("a/b"), "user.k").unwrap(), b"v");
        // Without the lower layer, the same layer is another directory.
        let alone = unpack(&store, &[top]).remove(0);
        assert_ne!(alone, at[2]);
        assert_eq!(stat(&alone, "a/b").uid(), 0);
    });
}

#[test]
fn a_layer_that_lists_what_it_uses_is_shared() {
    sandbox(|s| {
        let shared = Layer::new().directory("etc", 0o755).file("etc/x", "x").into_tar();
        let (a, b) = (Layer::new().file("a", "").into_tar(), Layer::new().file("b", "").into_tar());
        let store = Store::new(s);
        let first = unpack(&store, &[a.clone(), shared.clone()]);
        let second = unpack(&store, &[b, shared.clone()]);
        assert_eq!(first[1], second[1]);
        // The same layer is another directory if the root below differs.
        let rooted = Layer::new().directory("./", 0o700).into_tar();
        let third = unpack(&store, &[rooted, shared.clone()]);
        assert_ne!(first[1], third[1]);
        assert_eq!(stat(&third[1], "").mode() & 0o777, 0o700);
        // overlayfs accepts no directory twice, so only the upper one of two equal layers is mounted.
        assert_eq!(
            unpack(&store, &[shared.clone(), a, shared]),
            [first[0].clone(), first[1].clone()]
        );
    });
}

#[test]
fn nothing_outside_the_layer_is_touched() {
    sandbox(|s| {
        let store = Store::new(s);
        let outside = store.beside("out");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("kept"), "kept").unwrap();
        let out = outside.to_str().unwrap().to_owned();
        let kept = format!("{out}/kept");
        let up = "../../../../../../../../../..";
        let upwards = format!("{up}{out}/x");
        let through = format!("{up}{out}");
        let whiteout = format!("{}/.wh.kept", "etc");
        let number = Cell::new(0);
        // After each layer, so that no later one hides what an earlier one did.
        let check_outside = || {
            let layer = number.replace(number.get() + 1);
            let names: Vec<_> = std::fs::read_dir(&outside).unwrap().collect();
            assert_eq!(names.len(), 1, "layer {layer}");
            assert_eq!(std::fs::read_to_string(&kept).unwrap(), "kept", "layer {layer}");
            assert_eq!(stat(&outside, "").mode() & 0o777, 0o755, "layer {layer}");
        };
        let refused = |tar: Layer| -> Option<String> {
            let message = store.fail(1, &["-q", &layout(&store, &[tar.into_tar()])]);
            check_outside();
            Some(message)
        };
        let unpacked = |tar: Layer| -> Option<String> {
            unpack(&store, &[tar.into_tar()]);
            check_outside();
            None
        };
        for (what, outcome, fault) in [
            (
                "upwards",
                refused(Layer::new().file("../../x", "x")),
                "entry ../../x: the name leads upwards",
            ),
            ("far upwards", refused(Layer::new().file(&upwards, "x")), "the name leads upwards"),
            (
                "inner upwards",
                refused(Layer::new().file("a/../../x", "x")),
                "the name leads upwards",
            ),
            (
                "hard link upwards",
                refused(Layer::new().hard_link("l", &format!("{through}/kept")).file("l", "x")),
                "the name leads upwards",
            ),
            (
                "hard link by absolute name",
                refused(Layer::new().hard_link("l", &kept).file("l", "x")),
                "No such file",
            ),
            (
                "hard link through a symlink",
                refused(Layer::new().symlink("s", &out).hard_link("l", "s/kept").file("l", "x")),
                "No such file",
            ),
            ("absolute name", unpacked(Layer::new().file(&format!("{out}/x"), "x")), ""),
            (
                "absolute symlink",
                unpacked(
                    Layer::new().symlink("etc", &out).file("etc/passwd", "x").file("etc/kept", "x"),
                ),
                "",
            ),
            (
                "relative symlink",
                unpacked(Layer::new().symlink("etc", &through).file("etc/kept", "x")),
                "",
            ),
            (
                "symlink as the name itself",
                unpacked(
                    Layer::new()
                        .symlink("f", &kept)
                        .file("f", "x")
                        .symlink("g", &kept)
                        .directory("g", 0o700),
                ),
                "",
            ),
            (
                "symlink replaced by itself mid-way",
                unpacked(
                    Layer::new()
                        .directory("d", 0o755)
                        .file("d/a", "")
                        .symlink("d", &out)
                        .file("d/kept", "x"),
                ),
                "",
            ),
            ("whiteout", unpacked(Layer::new().symlink("etc", &out).file(&whiteout, "")), ""),
            (
                "opaque",
                unpacked(Layer::new().symlink("etc", &out).file("etc/.wh..wh..opq", "")),
                "",
            ),
            ("chmod", unpacked(Layer::new().symlink("etc", &out).directory("etc/", 0o777)), ""),
            (
                "loop",
                refused(Layer::new().symlink("a", "b").symlink("b", "a").file("a/x", "")),
                "Too many levels",
            ),
            (
                "file as directory",
                refused(Layer::new().file("a", "").file("a/x", "")),
                "Not a directory",
            ),
            ("root as symlink", refused(Layer::new().symlink("./", &out)), "the root itself"),
            (
                "root as hard link",
                refused(Layer::new().hard_link("l", "/")),
                "a hard link to the root",
            ),
            (
                "bare whiteout",
                refused(Layer::new().file(".wh.", "")),
                "a whiteout that hides nothing",
            ),
            (
                "whiteout of ..",
                refused(Layer::new().file("a/.wh...", "")),
                "a whiteout that hides nothing",
            ),
            (
                "whiteout as directory",
                refused(Layer::new().file(".wh.a/b", "")),
                "in place of a directory",
            ),
            (
                "overlayfs attribute",
                refused(
                    Layer::new()
                        .pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/")])
                        .file("a", ""),
                ),
                "the attribute trusted.overlay.redirect",
            ),
            (
                "overlayfs whiteout",
                refused(Layer::new().entry(Entry::device("a", 0, 0))),
                "what the store itself hides a name with",
            ),
            (
                "NUL",
                refused(Layer::new().pax(&[("path", b"a\0b")]).file("a", "")),
                "a malformed pax path",
            ),
        ] {
            match outcome {
                Some(message) => {
                    assert!(message.contains(fault) && !fault.is_empty(), "{what}: {message}")
                }
                None => assert!(fault.is_empty(), "{what}"),
            }
        }
    });
}
