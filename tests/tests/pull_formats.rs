//! Compressions of layers, and rare kinds of entries.

#![cfg(target_os = "linux")]

use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use jc_tests::image::{Built, Packed, digest512, gzip};
use jc_tests::layer::{Entry, Layer};
use jc_tests::pulled::{Store, layer_dirs};
use jc_tests::sandbox;

fn tar() -> Vec<u8> {
    Layer::new().directory("./", 0o755).file("x", "content").into_tar()
}

fn pull(store: &Store, image: &Built) -> Vec<std::path::PathBuf> {
    layer_dirs(&store.pull(&["-q", &store.layout("image", image)])[0])
}

fn refuse(store: &Store, image: &Built, arguments: &[&str]) -> String {
    let name = store.layout("image", image);
    store.fail(1, &[&["-q", name.as_str()], arguments].concat())
}

#[test]
fn every_wrapping_gives_the_same_layer() {
    sandbox(|s| {
        let tar = tar();
        let (front, back) = tar.split_at(700);
        let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 3).unwrap();
        // zstd:chunked ends with a frame that decoders skip.
        let table = [b"\x50\x2a\x4d\x18".as_slice(), &5_u32.to_le_bytes(), b"table"].concat();
        let sha512 = Packed { diff_id: digest512(&tar), ..Packed::gzip(&tar) };
        let blob512 = digest512(&sha512.blob);
        for (what, layer) in [
            ("gzip of members", Packed::wrapped(&tar, [gzip(front), gzip(back)].concat(), "+gzip")),
            ("zstd", Packed::wrapped(&tar, zstd(&tar), "+zstd")),
            (
                "zstd of frames",
                Packed::wrapped(&tar, [zstd(front), zstd(back), table].concat(), "+zstd"),
            ),
            ("plain that says gzip", Packed::wrapped(&tar, tar.clone(), "+gzip")),
            ("sha512", sha512),
        ] {
            let store = Store::new(s);
            let image = Built::of(&[layer]);
            let at = pull(&store, &image);
            assert_eq!(std::fs::read_to_string(at[0].join("x")).unwrap(), "content", "{what}");
            if what == "sha512" {
                assert_eq!(image.layer(0), blob512);
                assert!(at[0].file_name().unwrap().to_string_lossy().starts_with("sha512-"));
            }
        }
        for (what, blob, fault) in [
            ("a cut zstd frame", zstd(&tar)[..20].to_vec(), "incomplete frame"),
            (
                "junk behind gzip",
                [gzip(&tar), b"this is junk".to_vec()].concat(),
                "invalid gzip header",
            ),
            (
                "junk behind zstd",
                [zstd(&tar), b"junk".to_vec()].concat(),
                "Unknown frame descriptor",
            ),
        ] {
            let store = Store::new(s);
            let message = refuse(&store, &Built::of(&[Packed::wrapped(&tar, blob, "")]), &[]);
            assert!(message.contains(fault), "{what}: {message}");
        }
    });
}

#[test]
fn an_image_without_layers_is_an_empty_root() {
    sandbox(|s| {
        let store = Store::new(s);
        let at = pull(&store, &Built::of(&[]));
        assert_eq!(at.len(), 1);
        assert_eq!(std::fs::read_dir(&at[0]).unwrap().count(), 0);
        let stat = std::fs::metadata(&at[0]).unwrap();
        assert_eq!((stat.mode() & 0o7777, stat.mtime()), (0o755, 0));
        assert_eq!(pull(&store, &Built::of(&[])), at);
    });
}

#[test]
fn a_layer_may_unpack_to_so_much_only() {
    sandbox(|s| {
        let store = Store::new(s);
        let big = Layer::new().file("a", "small").file("b", &"x".repeat(5000)).into_tar();
        let message = refuse(&store, &Built::of(&[Packed::gzip(&big)]), &["--max-size", "4K"]);
        assert!(message.ends_with("entry b: unpacks to more than 4096 bytes"), "{message}");
        // A hole counts for the limit too.
        let hole = Layer::new()
            .pax(&[("GNU.sparse.size", b"9000000000"), ("GNU.sparse.map", b"0,1")])
            .file("h", "x")
            .into_tar();
        let message = refuse(&store, &Built::of(&[Packed::gzip(&hole)]), &["--max-size", "4G"]);
        assert!(message.contains("entry h: unpacks to more"), "{message}");
        // Bytes behind the end of the archive count too.
        let zeros = Layer::new().file("a", "").into_tar();
        let zeros = [zeros, vec![0; 600 << 10]].concat();
        let message = refuse(&store, &Built::of(&[Packed::gzip(&zeros)]), &["--max-size", "100K"]);
        assert!(message.contains("unpacks to more than"), "{message}");
        assert_eq!(pull(&store, &Built::of(&[Packed::gzip(&zeros)])).len(), 1);
    });
}

/// Packs a directory with GNU tar, which writes all sparse forms.
fn gnu_tar(directory: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("tar")
        .args(["--sparse", "--numeric-owner", "--sort=name", "-C"])
        .arg(directory)
        .args(arguments)
        .args(["-cf", "-", "."])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

#[test]
fn sparse_files_come_out_with_their_holes() {
    sandbox(|s| {
        let store = Store::new(s);
        let from = store.beside("from");
        std::fs::create_dir(&from).unwrap();
        let file = |name: &str, length: u64, pieces: &[(u64, &[u8])]| {
            let file = std::fs::File::create(from.join(name)).unwrap();
            file.set_len(length).unwrap();
            for (offset, bytes) in pieces {
                file.write_all_at(bytes, *offset).unwrap();
            }
        };
        let many: Vec<(u64, &[u8])> = (0..60).map(|n| (n * 200_000, b"data".as_slice())).collect();
        file("empty-with-hole", 1 << 20, &[]);
        file("hole-at-end", 3 << 20, &[(0, b"start")]);
        file("hole-at-start", (3 << 20) + 5, &[(3 << 20, b"end!!")]);
        file("many-holes", 60 * 200_000, &many);
        for form in [
            ["--format=gnu"].as_slice(),
            &["--format=pax", "--sparse-version=0.0"],
            &["--format=pax", "--sparse-version=0.1"],
            &["--format=pax", "--sparse-version=1.0"],
        ] {
            let store = Store::new(s);
            let tar = gnu_tar(&from, form);
            assert!(tar.len() < 2 << 20, "{form:?}: tar sees no holes here");
            let at = pull(&store, &Built::of(&[Packed::gzip(&tar)])).remove(0);
            for name in ["empty-with-hole", "hole-at-end", "hole-at-start", "many-holes"] {
                let (old, new) = (from.join(name), at.join(name));
                assert_eq!(
                    std::fs::read(&old).unwrap(),
                    std::fs::read(&new).unwrap(),
                    "{form:?} {name}"
                );
                let blocks = std::fs::metadata(&new).unwrap().blocks();
                assert!(blocks <= std::fs::metadata(&old).unwrap().blocks() + 8, "{form:?} {name}");
            }
        }
    });
}

#[test]
fn internal_files_of_aufs_are_not_in_the_layer() {
    sandbox(|s| {
        let tar = Layer::new()
            .file(".wh..wh.aufs", "")
            .directory(".wh..wh.orph", 0o700)
            .directory(".wh..wh.plnk", 0o700)
            .entry(Entry::file(".wh..wh.plnk/7.9", "linked").mode(0o640))
            .hard_link("a", ".wh..wh.plnk/7.9")
            .hard_link("b", ".wh..wh.plnk/7.9")
            .file(".wh.gone", "")
            .into_tar();
        let store = Store::new(s);
        let at = pull(&store, &Built::of(&[Packed::gzip(&tar)])).remove(0);
        let mut names: Vec<_> =
            std::fs::read_dir(&at).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["a", "b", "gone"]);
        let (a, b) = (at.join("a").metadata().unwrap(), at.join("b").metadata().unwrap());
        assert_eq!((a.ino(), a.mode() & 0o7777, a.nlink()), (b.ino(), 0o640, 2));
        assert_eq!(std::fs::read_to_string(at.join("b")).unwrap(), "linked");
        for path in ["d/.wh..wh.plnk", ".wh..wh.other", ".wh..wh.aufs2/x"] {
            let tar = Layer::new().file(path, "").into_tar();
            let message = refuse(&store, &Built::of(&[Packed::gzip(&tar)]), &[]);
            assert!(message.contains("whiteout"), "{path}: {message}");
        }
    });
}
