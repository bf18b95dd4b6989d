//! What layers come wrapped in, and the rarer things that archives hold.

use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use crate::common::{Image, Layer, Member, Store, Tar, digest512, gzip, layers, root};

fn tar() -> Vec<u8> {
    Tar::new().directory("./", 0o755).file("x", "content").finish()
}

fn pull(store: &Store, image: &Image) -> Vec<std::path::PathBuf> {
    let path = store.beside("image");
    let _: std::io::Result<()> = std::fs::remove_dir_all(&path);
    image.write_layout(&path);
    layers(&store.pull(&["-q", &format!("oci:{}", path.display())])[0])
}

fn refuse(store: &Store, image: &Image, arguments: &[&str]) -> String {
    let path = store.beside("image");
    let _: std::io::Result<()> = std::fs::remove_dir_all(&path);
    image.write_layout(&path);
    store.fail(1, &[&["-q", &format!("oci:{}", path.display())], arguments].concat())
}

#[test]
fn every_wrapping_gives_the_same_layer() {
    if !root() {
        return;
    }
    let tar = tar();
    let (front, back) = tar.split_at(700);
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 3).unwrap();
    // As zstd:chunked ends: a frame that decoders skip.
    let table = [b"\x50\x2a\x4d\x18".as_slice(), &5_u32.to_le_bytes(), b"table"].concat();
    let sha512 = Layer { diff_id: digest512(&tar), ..Layer::gzip(&tar) };
    let blob512 = digest512(&sha512.blob);
    for (what, layer) in [
        ("gzip of members", Layer::wrapped(&tar, [gzip(front), gzip(back)].concat(), "+gzip")),
        ("zstd", Layer::wrapped(&tar, zstd(&tar), "+zstd")),
        (
            "zstd of frames",
            Layer::wrapped(&tar, [zstd(front), zstd(back), table].concat(), "+zstd"),
        ),
        ("plain that says gzip", Layer::wrapped(&tar, tar.clone(), "+gzip")),
        ("sha512", sha512),
    ] {
        let store = Store::new();
        let image = Image::new(&[layer]);
        let at = pull(&store, &image);
        assert_eq!(std::fs::read_to_string(at[0].join("x")).unwrap(), "content", "{what}");
        if what == "sha512" {
            assert_eq!(image.layers, std::slice::from_ref(&blob512));
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
        ("junk behind zstd", [zstd(&tar), b"junk".to_vec()].concat(), "Unknown frame descriptor"),
    ] {
        let store = Store::new();
        let message = refuse(&store, &Image::new(&[Layer::wrapped(&tar, blob, "")]), &[]);
        assert!(message.contains(fault), "{what}: {message}");
    }
}

#[test]
fn an_image_without_layers_is_an_empty_root() {
    if !root() {
        return;
    }
    let store = Store::new();
    let at = pull(&store, &Image::new(&[]));
    assert_eq!(at.len(), 1);
    assert_eq!(std::fs::read_dir(&at[0]).unwrap().count(), 0);
    let stat = std::fs::metadata(&at[0]).unwrap();
    assert_eq!((stat.mode() & 0o7777, stat.mtime()), (0o755, 0));
    assert_eq!(pull(&store, &Image::new(&[])), at);
}

#[test]
fn a_layer_may_unpack_to_so_much_only() {
    if !root() {
        return;
    }
    let store = Store::new();
    let big = Tar::new().file("a", "small").file("b", &"x".repeat(5000)).finish();
    let message = refuse(&store, &Image::new(&[Layer::gzip(&big)]), &["--max-size", "4K"]);
    assert!(message.ends_with("entry b: unpacks to more than 4096 bytes"), "{message}");
    // A hole counts too.
    let hole = Tar::new()
        .pax(&[("GNU.sparse.size", b"9000000000"), ("GNU.sparse.map", b"0,1")])
        .file("h", "x")
        .finish();
    let message = refuse(&store, &Image::new(&[Layer::gzip(&hole)]), &["--max-size", "4G"]);
    assert!(message.contains("entry h: unpacks to more"), "{message}");
    // And so does what follows the end of the archive.
    let zeros = Tar::new().file("a", "").finish();
    let zeros = [zeros, vec![0; 600 << 10]].concat();
    let message = refuse(&store, &Image::new(&[Layer::gzip(&zeros)]), &["--max-size", "100K"]);
    assert!(message.contains("unpacks to more than"), "{message}");
    assert_eq!(pull(&store, &Image::new(&[Layer::gzip(&zeros)])).len(), 1);
}

/// Packs a directory with GNU tar, which knows all sparse forms.
fn gnu_tar(directory: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("tar")
        .args(["--sparse", "--numeric-owner", "--sort=name", "-C"])
        .arg(directory)
        .args(arguments)
        .args(["-cf", "-", "."])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn sparse_files_come_out_with_their_holes() {
    if !root() {
        return;
    }
    let store = Store::new();
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
        let store = Store::new();
        let tar = gnu_tar(&from, form);
        assert!(tar.len() < 2 << 20, "{form:?}: tar sees no holes here");
        let at = pull(&store, &Image::new(&[Layer::gzip(&tar)])).remove(0);
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
}

#[test]
fn what_aufs_kept_for_itself_is_not_in_the_layer() {
    if !root() {
        return;
    }
    let tar = Tar::new()
        .file(".wh..wh.aufs", "")
        .directory(".wh..wh.orph", 0o700)
        .directory(".wh..wh.plnk", 0o700)
        .member(&Member {
            path: ".wh..wh.plnk/7.9",
            content: b"linked",
            mode: 0o640,
            ..Member::default()
        })
        .hard_link("a", ".wh..wh.plnk/7.9")
        .hard_link("b", ".wh..wh.plnk/7.9")
        .file(".wh.gone", "")
        .finish();
    let store = Store::new();
    let at = pull(&store, &Image::new(&[Layer::gzip(&tar)])).remove(0);
    let mut names: Vec<_> =
        std::fs::read_dir(&at).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["a", "b", "gone"]);
    let (a, b) = (at.join("a").metadata().unwrap(), at.join("b").metadata().unwrap());
    assert_eq!((a.ino(), a.mode() & 0o7777, a.nlink()), (b.ino(), 0o640, 2));
    assert_eq!(std::fs::read_to_string(at.join("b")).unwrap(), "linked");
    for path in ["d/.wh..wh.plnk", ".wh..wh.other", ".wh..wh.aufs2/x"] {
        let tar = Tar::new().file(path, "").finish();
        let message = refuse(&store, &Image::new(&[Layer::gzip(&tar)]), &[]);
        assert!(message.contains("whiteout"), "{path}: {message}");
    }
}
