//! Layers that take something from those beneath them.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::common::{Image, Layer, Member, Store, Tar, layers, root};
use crate::registry::Registry;

fn pull(store: &Store, tars: &[Vec<u8>]) -> Vec<PathBuf> {
    let registry = Registry::start();
    let all: Vec<Layer> = tars.iter().map(|t| Layer::gzip(t)).collect();
    registry.push("x", "latest", &Image::new(&all), crate::common::MANIFEST);
    layers(&store.pull(&["-q", &format!("{}/x", registry.host)])[0])
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn a_hard_link_to_what_a_lower_layer_has_takes_it_over() {
    if !root() {
        return;
    }
    let base = Tar::new()
        .member(&Member { kind: b'5', path: "d", mode: 0o750, owner: (3, 4), ..Member::default() })
        .pax(&[("SCHILY.xattr.user.k", b"v")])
        .member(&Member {
            path: "d/file",
            mode: 0o6711,
            owner: (7, 8),
            mtime: 99,
            content: b"beneath",
            ..Member::default()
        })
        .member(&Member {
            kind: b'6',
            path: "pipe",
            mode: 0o640,
            owner: (9, 9),
            ..Member::default()
        })
        .member(&Member { kind: b'2', path: "sym", link: "to", owner: (5, 5), ..Member::default() })
        .symlink("dd", "d")
        .finish();
    let top = Tar::new()
        .hard_link("new/one", "d/file")
        .hard_link("two", "new/one")
        .hard_link("three", "dd/file")
        .hard_link("pipe2", "./pipe")
        .hard_link("sym2", "/sym")
        .finish();
    let store = Store::new();
    let at = pull(&store, &[base.clone(), top.clone()]).remove(1);
    let stat = |path: &str| std::fs::symlink_metadata(at.join(path)).unwrap();
    for name in ["d/file", "new/one", "two", "three"] {
        assert_eq!(read(&at.join(name)), "beneath");
        let s = stat(name);
        assert_eq!((s.ino(), s.nlink()), (stat("two").ino(), 4), "{name}");
        assert_eq!((s.mode() & 0o7777, s.uid(), s.gid(), s.mtime()), (0o6711, 7, 8, 99));
    }
    let value = &mut [0; 9][..];
    assert_eq!(rustix::fs::getxattr(at.join("two"), "user.k", value).unwrap(), 1);
    assert_eq!((stat("d").mode() & 0o7777, stat("d").uid()), (0o750, 3));
    assert!(stat("pipe").file_type().is_fifo());
    assert_eq!((stat("pipe").ino(), stat("pipe").uid()), (stat("pipe2").ino(), 9));
    assert_eq!((stat("sym").ino(), stat("sym").uid()), (stat("sym2").ino(), 5));
    assert_eq!(std::fs::read_link(at.join("sym2")).unwrap(), Path::new("to"));
    // The same tar elsewhere has nothing to link to, whatever the store holds.
    let registry = Registry::start();
    let other = Tar::new().file("d/other", "").finish();
    let gone = Tar::new().file("d/.wh.file", "").finish();
    for lower in [vec![other], vec![base, gone]] {
        let all: Vec<Layer> = lower.iter().chain([&top]).map(|t| Layer::gzip(t)).collect();
        registry.push("x", "latest", &Image::new(&all), crate::common::MANIFEST);
        let message = store.fail(1, &["-q", &format!("{}/x", registry.host)]);
        assert!(message.ends_with("hard link to d/file: No such file or directory"), "{message}");
    }
}

#[test]
fn a_directory_that_is_a_link_beneath_is_followed() {
    if !root() {
        return;
    }
    let base = Tar::new()
        .directory("usr", 0o755)
        .member(&Member { kind: b'5', path: "usr/lib", mode: 0o711, mtime: 5, ..Member::default() })
        .file("usr/lib/old", "")
        .symlink("lib", "usr/lib")
        .symlink("abs", "/usr/lib")
        .symlink("up", "../../../usr/../lib")
        .finish();
    let top = Tar::new()
        .file("lib/a", "a")
        .file("abs/b", "b")
        .file("up/sub/c", "c")
        .file("lib/.wh.old", "")
        .directory("plain", 0o755)
        .finish();
    let store = Store::new();
    let at = pull(&store, &[base.clone(), top.clone()]).remove(1);
    for (path, text) in [("usr/lib/a", "a"), ("usr/lib/b", "b"), ("usr/lib/sub/c", "c")] {
        assert_eq!(read(&at.join(path)), text);
    }
    let names: Vec<_> = std::fs::read_dir(&at).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(at.join("usr/lib/old").symlink_metadata().unwrap().file_type().is_char_device());
    let lib = at.join("usr/lib").metadata().unwrap();
    assert_eq!((lib.mode() & 0o7777, lib.mtime()), (0o711, 5));
    // A directory that the layer does list takes the link's place.
    let listed = Tar::new().directory("lib", 0o755).file("lib/a", "a").finish();
    let at = pull(&store, &[base, listed]).remove(1);
    assert!(at.join("lib/a").is_file());
    // A link that leads out of the root ends at the root.
    let out = Tar::new().symlink("out", "../../../../etc").finish();
    let at = pull(&store, &[out, Tar::new().file("out/x", "x").finish()]).remove(1);
    assert_eq!(read(&at.join("etc/x")), "x");
}
