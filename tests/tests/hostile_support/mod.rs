//! Layers and archives that lead out of the directory that they are unpacked into.

#![allow(dead_code)] // each test file uses some of it

use std::fs;
use std::path::{Path, PathBuf};

use jc_tests::layer::{Entry, Layer};
use jc_tests::pulled::paths;

/// Links of every kind to `victim`, and the entries that a puller may write through them.
pub fn leading_out() -> Vec<Layer> {
    let file = |path: &str| Entry::file(path, "changed");
    let mut layers = Vec::new();
    for target in ["victim", "./victim", "../victim", "../../victim", "/srv/work/victim"] {
        layers.push(Layer::new().entry(Entry::hardlink("link", target)).entry(file("link")));
        layers.push(Layer::new().entry(Entry::symlink("link", target)).entry(file("link")));
        let through = Layer::new().entry(Entry::symlink("link", target));
        layers.push(through.entry(Entry::hardlink("other", "link")).entry(file("other")));
    }
    for target in ["dir", "./dir", "../dir", "/srv/work/dir", "../../../../srv/work/dir"] {
        for name in ["link", "link/", "link/.", "link//", "./link/"] {
            let link = || Layer::new().entry(Entry::symlink("link", target));
            layers.push(link().entry(file(&format!("{name}/victim"))));
            layers.push(link().entry(Entry::dir(name).mode(0o777)).entry(file("link/victim")));
            layers.push(link().entry(Entry::hardlink("other", &format!("{name}/victim"))));
            layers.push(link().entry(Entry::file(&format!("{name}/.wh.victim"), "")));
            layers.push(link().entry(Entry::file(&format!("{name}/.wh..wh..opq"), "")));
            layers.push(link().entry(Entry::file(&format!(".wh.{name}"), "")));
        }
    }
    layers
}

/// Entries of an archive that lead to, replace, or change the mode of files beside the archive.
pub fn leading_out_of_archives() -> Vec<Entry> {
    let mut entries = Vec::new();
    for target in ["/srv/work", "../work", "../../../../../../srv/work", "."] {
        entries.push(Entry::symlink("blobs/out", target));
        entries.push(Entry::file("blobs/out/victim", "changed").mode(0o4777));
        entries.push(Entry::dir("blobs/out/").mode(0o777).owner(4321, 4321));
        entries.push(Entry::hardlink("blobs/victim", &format!("{target}/victim")));
        entries.push(Entry::file("blobs/victim", "changed").mode(0o4777));
    }
    for path in ["victim", "./victim", "../work/victim", "/srv/work/victim", "blobs/../victim"] {
        entries.push(Entry::file(path, "changed").mode(0o4777));
        entries.push(Entry::symlink(path, "/etc/passwd"));
    }
    entries.push(Entry::dir("./").mode(0o777).owner(4321, 4321));
    entries.push(Entry::dir("../work/").mode(0o777).owner(4321, 4321));
    entries
}

/// Files of a directory as entries.
pub fn entries_of(directory: &Path) -> Vec<Entry> {
    let files = paths(directory).into_iter().filter(|path| path.is_file());
    let entry = |path: PathBuf| {
        let name = path.strip_prefix(directory).unwrap().to_str().unwrap();
        Entry::file(name, fs::read(&path).unwrap())
    };
    files.map(entry).collect()
}
