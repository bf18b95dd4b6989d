//! `--to` and `--tar`: the whole image in one directory or one archive, compared with other programs.

#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use jc_tests::image::{Built, Packed};
use jc_tests::layer::{Entry, Layer};
use jc_tests::pulled::{Store, failure, layer_dirs};
use jc_tests::{require, sandbox};

/// The metadata and content of all files in a directory, by path. Sizes and link counts of directories depend on the
/// file system, and are left out.
fn listing(root: &Path) -> BTreeMap<PathBuf, String> {
    let (mut found, mut names) = (BTreeMap::new(), BTreeMap::<u64, PathBuf>::new());
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let stat = path.symlink_metadata().unwrap();
        let short = path.strip_prefix(root).unwrap().to_owned();
        let kind = stat.file_type();
        let content = if kind.is_symlink() {
            std::fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
        } else if kind.is_file() {
            std::fs::read(&path).unwrap()
        } else {
            Vec::new()
        };
        let first = if kind.is_dir() {
            short.clone()
        } else {
            names.entry(stat.ino()).or_insert(short.clone()).clone()
        };
        let line = format!(
            "{:o} {}:{} {}.{:09} {:x} {} {:?} {}",
            stat.mode(),
            stat.uid(),
            stat.gid(),
            stat.mtime(),
            stat.mtime_nsec(),
            stat.rdev(),
            String::from_utf8_lossy(&content),
            xattrs(&path),
            first.display()
        );
        found.insert(short, line);
        if kind.is_dir() {
            let mut below: Vec<_> =
                std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()).collect();
            // The order decides which of several names of a file comes first, on all sides.
            below.sort_by(|a, b| b.cmp(a));
            todo.extend(below);
        }
    }
    found
}

fn xattrs(path: &Path) -> Vec<(String, Vec<u8>)> {
    let path = CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    let mut names = [0; 4096];
    let n = rustix::fs::llistxattr(path.as_c_str(), &mut names[..]).unwrap_or(0);
    // An overlay with its own attributes in `trusted.` shows those of others in another form.
    let names = names[..n].split(|b| *b == 0);
    let names = names.filter(|n| !n.is_empty() && !n.starts_with(b"user.overlay."));
    let mut all: Vec<(String, Vec<u8>)> = names
        .map(|name| {
            let name = String::from_utf8(name.to_vec()).unwrap();
            let mut value = [0; 4096];
            let n = rustix::fs::lgetxattr(path.as_c_str(), name.as_str(), &mut value[..]).unwrap();
            (name, value[..n].to_vec())
        })
        .collect();
    all.sort();
    all
}

fn same(what: &str, one: &BTreeMap<PathBuf, String>, other: &BTreeMap<PathBuf, String>) {
    for path in one.keys().chain(other.keys()) {
        assert_eq!(one.get(path), other.get(path), "{what}: {}", path.display());
    }
}

/// Layers with every kind of change of lower layers.
fn image() -> Built {
    let owned =
        |entry: Entry, mode, uid| entry.mode(mode).owner(uid, uid + 1).mtime(1_000_000 + uid);
    let base = Layer::new()
        .entry(owned(Entry::dir("./"), 0o755, 0))
        .entry(owned(Entry::dir("etc"), 0o750, 7))
        .file("etc/kept", "kept")
        .file("etc/gone", "gone")
        .file("etc/changed", "old")
        .pax(&[("SCHILY.xattr.user.k", b"v")])
        .entry(owned(Entry::file("etc/attributes", ""), 0o4711, 70_000))
        .hard_link("etc/linked", "etc/kept")
        .directory("usr", 0o755)
        .entry(owned(Entry::dir("usr/lib"), 0o711, 3))
        .file("usr/lib/old", "")
        .symlink("lib", "usr/lib")
        .directory("opaque", 0o755)
        .file("opaque/hidden", "")
        .directory("opaque/below", 0o700)
        .file("was-file", "")
        .directory("was-directory", 0o755)
        .file("was-directory/x", "")
        .entry(owned(Entry::device("null", 1, 3), 0o666, 4))
        .entry(owned(Entry::fifo("pipe"), 0o600, 5))
        .into_tar();
    let middle = Layer::new()
        .directory("etc", 0o755)
        .file("etc/.wh.gone", "")
        .file("etc/.wh.never-was", "")
        .file("etc/changed", "new")
        .file("lib/new", "through the link")
        .hard_link("another", "etc/attributes")
        .directory("opaque", 0o755)
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/shown", "")
        .file(".wh.was-file", "")
        .directory("was-file", 0o1777)
        .file(".wh.was-directory", "")
        .file("was-directory", "")
        .into_tar();
    let top =
        Layer::new().file("usr/lib/deep/er/x", "x").symlink("dangling", "/no/where").into_tar();
    Built::of(&[Packed::gzip(&base), Packed::gzip(&middle), Packed::gzip(&top)])
}

#[test]
fn a_directory_and_an_archive_hold_what_an_overlay_shows() {
    sandbox(|s| {
        let store = Store::new(s);
        store.layout("image", &image());
        let name = format!("oci:{}:t", store.beside("image").display());
        let to = store.beside("to");
        let record = &store.pull(&["-q", "--to", to.to_str().unwrap(), &name])[0];
        assert_eq!(
            (&record["rootfs"], &record["layers"]),
            (&to.to_str().unwrap().into(), &().into())
        );
        let flat = listing(&to);
        assert!(
            flat.contains_key(Path::new("usr/lib/new"))
                && !flat.contains_key(Path::new("etc/gone"))
        );

        // An overlay of the kernel shows the same files.
        let layers = layer_dirs(&store.pull(&["-q", &name])[0]);
        let lower: Vec<_> = layers.iter().rev().map(|l| l.display().to_string()).collect();
        let copy = store.beside("copy");
        std::fs::create_dir(&copy).unwrap();
        let script = "mount -t overlay o -o \"lowerdir=$1\" /mnt && cp -a /mnt/. \"$2\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--", "sh", "-c", script, "sh", &lower.join(":")]).arg(&copy);
        assert!(command.status().unwrap().success());
        same("overlay", &listing(&copy), &flat);

        // tar(1) unpacks the same files.
        for output in ["file", "-"] {
            let (file, out) = (store.beside("all.tar"), store.beside(&format!("tar-{output}")));
            let target = if output == "-" { "-" } else { file.to_str().unwrap() };
            let result = store.run(&["-q", "--tar", target, &name]);
            assert!(result.status().success(), "{result}");
            if output == "-" {
                std::fs::write(&file, result.out_bytes()).unwrap();
            } else {
                assert!(result.out().starts_with("{\"jc\":1,"));
            }
            std::fs::create_dir(&out).unwrap();
            let mut tar = Command::new("tar");
            tar.args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-p", "-C"]).arg(&out);
            assert!(tar.arg("-xf").arg(&file).status().unwrap().success());
            same("tar", &listing(&out), &flat);
        }
    });
}

#[test]
fn umoci_makes_the_same_of_it() {
    sandbox(|s| {
        require(s, "umoci", "umoci");
        let store = Store::new(s);
        store.layout("image", &image());
        let image = format!("{}:t", store.beside("image").display());
        let (ours, theirs) = (store.beside("ours"), store.beside("theirs"));
        store.pull(&["-q", "--to", ours.to_str().unwrap(), &format!("oci:{image}")]);
        let mut umoci = Command::new("umoci");
        let umoci = umoci.args(["raw", "unpack", "--image", &image]).arg(&theirs).output().unwrap();
        assert!(umoci.status.success(), "{}", String::from_utf8_lossy(&umoci.stderr));
        let strip = |mut all: BTreeMap<PathBuf, String>| {
            // Directories that no layer lists, and those whose time umoci does not restore, have the time of the
            // unpacking there.
            for line in all.values_mut().filter(|l| l.starts_with('4')) {
                *line =
                    line.split(' ').enumerate().filter(|(n, _)| *n != 2).map(|(_, w)| w).collect();
            }
            all
        };
        same("umoci", &strip(listing(&theirs)), &strip(listing(&ours)));
    });
}

#[test]
fn an_existing_output_stays() {
    sandbox(|s| {
        let store = Store::new(s);
        store.layout("image", &image());
        let name = &format!("oci:{}:t", store.beside("image").display());
        let to = store.beside("to");
        std::fs::create_dir(&to).unwrap();
        let path = to.to_str().unwrap();
        store.pull(&["-q", "--to", path, name]);
        let message = store.fail(1, &["-q", "--to", path, name]);
        assert!(message.ends_with("to: Directory not empty"), "{message}");
        assert!(to.join("etc/kept").is_file());
        let hidden = std::fs::read_dir(to.parent().unwrap()).unwrap();
        assert!(
            hidden
                .map(|e| e.unwrap().file_name())
                .all(|n| !n.as_encoded_bytes().starts_with(b".to."))
        );
        let message = store.fail(1, &["-q", "--to", "/no/such/to", name]);
        assert!(message.contains("open /no/such: No such file"), "{message}");
        let message = store.fail(1, &["-q", "--tar", "/no/such/tar", name]);
        assert!(message.contains("open /no/such: No such file"), "{message}");
        let full = store.run(&["-q", "--tar", "/dev/full", name]);
        assert!(failure(&full, 1).contains("No space left on device"));
        for arguments in [vec!["--to", path, name, name], vec!["--tar", "-", "--to", path, name]] {
            store.fail(2, &arguments);
        }
    });
}
