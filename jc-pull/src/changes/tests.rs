//! Upper directories made by hand, their changes and their layers.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use jc_unshare::lower::{Lower, Overlay};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, makedev, mknodat};

use super::base::Base;
use super::layer::LayerOptions;
use super::list::{Change, Kind};
use super::pattern::Patterns;
use super::upper::Upper;
use crate::tar::{Entry, EntryKind, Reader, Time};

/// A directory with `lower` and `upper`, as jc-rootfs makes it.
struct Made {
    dir: tempfile::TempDir,
}

impl Made {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        for name in ["base", "u", "u/upper"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { dir }
    }

    fn upper(&self, name: &str) -> PathBuf {
        self.dir.path().join("u/upper").join(name)
    }

    fn base(&self, name: &str) -> PathBuf {
        self.dir.path().join("base").join(name)
    }

    /// Makes the same files in the lower and in the upper directory.
    fn both(&self, directories: &[&str]) {
        for name in directories {
            for path in [self.base(name), self.upper(name)] {
                fs::create_dir_all(path).unwrap();
            }
        }
    }

    fn mark(&self, name: &str, mark: &str, value: &[u8]) {
        let key = format!("user.overlay.{mark}");
        lsetxattr(self.upper(name), key, value, XattrFlags::empty()).unwrap();
    }

    fn whiteout(&self, name: &str) {
        mknodat(CWD, self.upper(name), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    }

    /// Writes the file `lower` with these mount points, and opens the directory.
    fn open(&self, mounts: &[&str]) -> Upper {
        let mut lower = Lower::new(
            0,
            vec![Overlay {
                at: "/".into(),
                upper: "upper".into(),
                layers: vec![self.dir.path().join("base").into()],
                userxattr: true,
            }],
        );
        lower.mounts = mounts.iter().map(Into::into).collect();
        fs::write(self.dir.path().join("u/lower"), lower.to_json().unwrap()).unwrap();
        self.align_times("");
        Upper::open(&self.dir.path().join("u")).unwrap()
    }

    /// Gives the directories of the upper directory the times of the lower ones, as overlayfs does.
    fn align_times(&self, name: &str) {
        let (ours, theirs) = (self.upper(name), self.base(name));
        if !ours.symlink_metadata().unwrap().is_dir() || !theirs.is_dir() {
            return;
        }
        for entry in fs::read_dir(&ours).unwrap() {
            let below = Path::new(name).join(entry.unwrap().file_name());
            self.align_times(below.to_str().unwrap());
        }
        let time = fs::metadata(&theirs).unwrap().modified().unwrap();
        fs::File::open(ours).unwrap().set_modified(time).unwrap();
    }
}

fn lines(upper: &Upper, patterns: &[&str]) -> Vec<String> {
    let patterns = Patterns::parse(patterns.iter().map(|word| word.as_bytes())).unwrap();
    let line = |change: Change| {
        let kind = match change.kind {
            Kind::Added => "A",
            Kind::Modified => "M",
            Kind::Deleted => "D",
        };
        format!("{kind} {}", String::from_utf8_lossy(&change.path))
    };
    upper.changes(None, &patterns).unwrap().into_iter().map(line).collect()
}

fn entries(mut archive: &[u8]) -> Vec<Entry> {
    let mut reader = Reader::new(&mut archive);
    std::iter::from_fn(|| reader.entry().unwrap()).collect()
}

fn layer(upper: &Upper, options: &LayerOptions) -> Vec<Entry> {
    let mut bytes = Vec::new();
    upper.write_layer(None, options, &mut bytes).unwrap();
    entries(&bytes)
}

fn paths(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|entry| String::from_utf8_lossy(&entry.path).into_owned()).collect()
}

#[test]
fn each_kind_of_change_has_its_letter() {
    let made = Made::new();
    made.both(&["same", "mode", "touched", "replaced", "with-files"]);
    for name in ["gone", "file", "to-dir", "replaced/old", "with-files/kept"] {
        fs::write(made.base(name), "old").unwrap();
    }
    fs::create_dir(made.base("gone-dir")).unwrap();
    fs::create_dir(made.base("to-file")).unwrap();
    for name in ["new", "file", "to-file", "replaced/new", "with-files/new", "new\nline"] {
        fs::write(made.upper(name), "new").unwrap();
    }
    fs::create_dir(made.upper("to-dir")).unwrap();
    for name in ["gone", "gone-dir", "never-there"] {
        made.whiteout(name);
    }
    fs::set_permissions(made.upper("mode"), PermissionsExt::from_mode(0o711)).unwrap();
    made.mark("replaced", "opaque", b"y");
    symlink("/etc", made.upper("link")).unwrap();
    let upper = made.open(&[]);
    let touched = fs::File::open(made.upper("touched")).unwrap();
    touched.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let expected = [
        "M file",
        "D gone",
        "D gone-dir",
        "A link",
        "M mode",
        "A new",
        "A new\nline",
        "D replaced",
        "A replaced",
        "A replaced/new",
        "D to-dir",
        "A to-dir",
        "M to-file",
        "M touched",
        "A with-files/new",
    ];
    assert_eq!(lines(&upper, &[]), expected);
    assert_eq!(
        lines(&upper, &["replaced", "*w"]),
        ["A new", "D replaced", "A replaced", "A replaced/new", "A with-files/new"]
    );
}

#[test]
fn mount_points_that_jc_made_are_no_changes() {
    let made = Made::new();
    made.both(&["etc"]);
    fs::create_dir_all(made.upper("a/b/c")).unwrap();
    fs::create_dir_all(made.upper("proc")).unwrap();
    fs::create_dir_all(made.upper("data/own")).unwrap();
    fs::write(made.upper("etc/hosts"), "").unwrap();
    fs::write(made.upper("etc/own"), "").unwrap();
    let upper = made.open(&["/proc", "/a/b/c", "/data", "/etc/hosts", "/nowhere/x", "/etc"]);
    assert_eq!(lines(&upper, &[]), ["A data", "A data/own", "A etc/own"]);
    let written = layer(&upper, &LayerOptions::default());
    assert_eq!(paths(&written), ["data/", "data/own/", "etc/", "etc/own"]);
}

#[test]
fn a_layer_has_whiteouts_opaque_directories_links_and_attributes() {
    let made = Made::new();
    made.both(&["d", "opaque", "same"]);
    fs::write(made.base("d/gone"), "").unwrap();
    for name in ["gone", "never"] {
        made.whiteout(&format!("d/{name}"));
    }
    fs::create_dir(made.upper("new")).unwrap();
    for (name, value) in [("opaque", b"y"), ("new", b"y")] {
        made.mark(name, "opaque", value);
    }
    fs::write(made.upper("file"), "content").unwrap();
    lsetxattr(made.upper("file"), "user.x", b"\0v", XattrFlags::empty()).unwrap();
    fs::hard_link(made.upper("file"), made.upper("new/same")).unwrap();
    fs::hard_link(made.upper("file"), made.upper("a-link")).unwrap();
    symlink("to\n", made.upper("symlink")).unwrap();
    mknodat(CWD, made.upper("pipe"), FileType::Fifo, Mode::RUSR, makedev(0, 0)).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(made.upper("socket")).unwrap();
    fs::File::create(made.upper("sparse")).unwrap().set_len(1 << 20).unwrap();
    let upper = made.open(&[]);
    let written = layer(&upper, &LayerOptions::default());
    let expected = [
        "a-link",
        "d/",
        "d/.wh.gone",
        "file",
        "new/",
        "new/same",
        "opaque/",
        "opaque/.wh..wh..opq",
        "pipe",
        "sparse",
        "symlink",
    ];
    assert_eq!(paths(&written), expected);
    let find = |name: &str| written.iter().find(|entry| entry.path == name.as_bytes()).unwrap();
    assert_eq!((&find("a-link").kind, find("a-link").size), (&EntryKind::File, 7));
    assert_eq!(find("a-link").xattrs, [(b"user.x".to_vec(), b"\0v".to_vec())]);
    for name in ["file", "new/same"] {
        assert_eq!(find(name).kind, EntryKind::HardLink(b"a-link".to_vec()));
    }
    assert_eq!(find("new/").xattrs, []);
    assert_eq!(find("symlink").kind, EntryKind::Symlink(b"to\n".to_vec()));
    assert_eq!(find("sparse").size, 1 << 20);
    let options = LayerOptions {
        patterns: Patterns::parse([b"new".as_slice()]).unwrap(),
        ..LayerOptions::default()
    };
    let written = layer(&upper, &options);
    assert_eq!(paths(&written), ["new/", "new/same"]);
    assert_eq!(written[1].kind, EntryKind::File);
}

#[test]
fn the_same_tree_gives_the_same_bytes_and_no_time_after_the_latest() {
    let write = |order: [&str; 3]| {
        let made = Made::new();
        for name in order {
            fs::write(made.upper(name), "x").unwrap();
        }
        let latest = Some(Time { seconds: 1000, nanoseconds: 0 });
        let options = LayerOptions { latest, ..LayerOptions::default() };
        let mut bytes = Vec::new();
        made.open(&[]).write_layer(None, &options, &mut bytes).unwrap();
        bytes
    };
    let bytes = write(["a", "b", "c"]);
    assert_eq!(bytes, write(["c", "a", "b"]));
    assert!(entries(&bytes).iter().all(|entry| entry.mtime.seconds == 1000));
}

#[test]
fn what_a_layer_cannot_have_is_an_error() {
    let written = |make: &dyn Fn(&Made)| {
        let made = Made::new();
        make(&made);
        made.open(&[]).write_layer(None, &LayerOptions::default(), std::io::sink())
    };
    let error = written(&|made| fs::write(made.upper(".wh.x"), "").unwrap()).unwrap_err();
    assert_eq!(error.to_string(), ".wh.x: has the name of a whiteout, so a layer cannot have it");
    for option in ["redirect", "metacopy"] {
        let error = written(&|made| {
            fs::create_dir(made.upper("d")).unwrap();
            made.mark("d", option, b"x");
        });
        let why = "/d: has its content in a lower directory, under another name";
        assert_eq!(error.unwrap_err().to_string(), why);
    }
}

#[test]
fn an_attribute_makes_an_empty_file_a_whiteout_in_a_directory_that_says_so() {
    let made = Made::new();
    made.both(&["d", "e"]);
    for name in ["d/x", "e/x"] {
        fs::write(made.base(name), "").unwrap();
        fs::write(made.upper(name), "").unwrap();
        made.mark(name, "whiteout", b"");
    }
    made.mark("d", "opaque", b"x");
    assert_eq!(lines(&made.open(&[]), &[]), ["D d/x", "M e/x"]);
}

#[test]
fn a_raw_upper_directory_needs_a_base() {
    let made = Made::new();
    fs::write(made.upper("new"), "").unwrap();
    fs::write(made.upper("old"), "").unwrap();
    fs::write(made.base("old"), "").unwrap();
    let upper = Upper::open(&made.dir.path().join("u/upper")).unwrap();
    assert!(upper.require_recorded().is_err());
    let base = Base::open(&made.dir.path().join("base")).unwrap();
    let changes = upper.changes(Some(&base), &Patterns::default()).unwrap();
    assert_eq!(
        changes.iter().map(|change| change.kind).collect::<Vec<_>>(),
        [Kind::Added, Kind::Modified]
    );
}

#[test]
fn a_recorded_path_cannot_lead_out() {
    let made = Made::new();
    fs::create_dir(made.dir.path().join("outside")).unwrap();
    symlink("../outside", made.dir.path().join("u/link")).unwrap();
    for upper in ["../outside", "/../outside", "link", "absent"] {
        let json = format!(
            r#"{{"jc":1,"uid":0,"overlays":[{{"at":"/","upper":"{upper}","layers":["/"],"userxattr":true}}]}}"#
        );
        fs::write(made.dir.path().join("u/lower"), json).unwrap();
        assert!(Upper::open(&made.dir.path().join("u")).is_err(), "{upper}");
    }
}
