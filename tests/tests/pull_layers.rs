//! Layers that depend on their lower layers.

#![cfg(target_os = "linux")]

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use jc_tests::http::Registry;
use jc_tests::image::{Built, Packed};
use jc_tests::layer::{Entry, Layer};
use jc_tests::pulled::{Store, layer_dirs};
use jc_tests::sandbox;

fn pull(store: &Store, tars: &[Vec<u8>]) -> Vec<PathBuf> {
    let registry = Registry::start();
    let all: Vec<Packed> = tars.iter().map(|t| Packed::gzip(t)).collect();
    registry.push("x", "latest", &Built::of(&all));
    layer_dirs(&store.pull(&["-q", &format!("{}/x", registry.host)])[0])
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn a_hard_link_to_what_a_lower_layer_has_takes_it_over() {
    sandbox(|s| {
        let base = Layer::new()
            .entry(Entry::dir("d").mode(0o750).owner(3, 4))
            .pax(&[("SCHILY.xattr.user.k", b"v")])
            .entry(Entry::file("d/file", "beneath").mode(0o6711).owner(7, 8).mtime(99))
            .entry(Entry::fifo("pipe").mode(0o640).owner(9, 9))
            .entry(Entry::symlink("sym", "to").owner(5, 5))
            .symlink("dd", "d")
            .into_tar();
        let top = Layer::new()
            .hard_link("new/one", "d/file")
            .hard_link("two", "new/one")
            .hard_link("three", "dd/file")
            .hard_link("pipe2", "./pipe")
            .hard_link("sym2", "/sym")
            .into_tar();
        let store = Store::new(s);
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
        // The same tar without the lower layer has no target for its link, whatever the store has.
        let registry = Registry::start();
        let other = Layer::new().file("d/other", "").into_tar();
        let gone = Layer::new().file("d/.wh.file", "").into_tar();
        for lower in [vec![other], vec![base, gone]] {
            let all: Vec<Packed> = lower.iter().chain([&top]).map(|t| Packed::gzip(t)).collect();
            registry.push("x", "latest", &Built::of(&all));
            let message = store.fail(1, &["-q", &format!("{}/x", registry.host)]);
            assert!(
                message.ends_with("hard link to d/file: No such file or directory"),
                "{message}"
            );
        }
    });
}

#[test]
fn a_directory_that_is_a_link_beneath_is_followed() {
    sandbox(|s| {
        let base = Layer::new()
            .directory("usr", 0o755)
            .entry(Entry::dir("usr/lib").mode(0o711).mtime(5))
            .file("usr/lib/old", "")
            .symlink("lib", "usr/lib")
            .symlink("abs", "/usr/lib")
            .symlink("up", "../../../usr/../lib")
            .into_tar();
        let top = Layer::new()
            .file("lib/a", "a")
            .file("abs/b", "b")
            .file("up/sub/c", "c")
            .file("lib/.wh.old", "")
            .directory("plain", 0o755)
            .into_tar();
        let store = Store::new(s);
        let at = pull(&store, &[base.clone(), top.clone()]).remove(1);
        for (path, text) in [("usr/lib/a", "a"), ("usr/lib/b", "b"), ("usr/lib/sub/c", "c")] {
            assert_eq!(read(&at.join(path)), text);
        }
        let names: Vec<_> =
            std::fs::read_dir(&at).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(at.join("usr/lib/old").symlink_metadata().unwrap().file_type().is_char_device());
        let lib = at.join("usr/lib").metadata().unwrap();
        assert_eq!((lib.mode() & 0o7777, lib.mtime()), (0o711, 5));
        // A directory that the layer lists replaces the symbolic link.
        let listed = Layer::new().directory("lib", 0o755).file("lib/a", "a").into_tar();
        let at = pull(&store, &[base, listed]).remove(1);
        assert!(at.join("lib/a").is_file());
        // A symbolic link above the root ends at the root.
        let out = Layer::new().symlink("out", "../../../../etc").into_tar();
        let at = pull(&store, &[out, Layer::new().file("out/x", "x").into_tar()]).remove(1);
        assert_eq!(read(&at.join("etc/x")), "x");
    });
}
