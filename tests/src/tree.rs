//! A record of a directory tree, for comparisons.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::image::digest;

/// Mode, owner, size, mtime, extended attributes and content of all files below a directory, and of the directory
/// itself as "". Access times are left out, since a read changes them.
pub fn manifest(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    visit(dir, dir, &mut all);
    all
}

fn visit(top: &Path, path: &Path, all: &mut BTreeMap<PathBuf, String>) {
    let meta = path.symlink_metadata().unwrap();
    let kind = meta.file_type();
    let content = if kind.is_symlink() {
        fs::read_link(path).unwrap().display().to_string()
    } else if kind.is_file() {
        digest(&fs::read(path).unwrap())
    } else if kind.is_char_device() || kind.is_block_device() {
        format!("{:#x}", meta.rdev())
    } else {
        String::new()
    };
    let line = format!(
        "{:o} {}:{} size {} links {} mtime {}.{:09} {content} {:?}",
        meta.mode(),
        meta.uid(),
        meta.gid(),
        if kind.is_dir() { 0 } else { meta.size() },
        // overlayfs has another link count for directories.
        if kind.is_dir() { 1 } else { meta.nlink() },
        meta.mtime(),
        meta.mtime_nsec(),
        xattrs(path)
    );
    all.insert(path.strip_prefix(top).unwrap().to_owned(), line);
    if kind.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            visit(top, &entry.unwrap().path(), all);
        }
    }
}

/// The extended attributes of a file. A symbolic link is not followed.
pub fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 65536];
    let n = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    names.truncate(n);
    let mut all = BTreeMap::new();
    for name in names.split_inclusive(|b| *b == 0) {
        let name = CStr::from_bytes_with_nul(name).unwrap();
        let mut value = vec![0; 65536];
        let n = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        value.truncate(n);
        all.insert(name.to_string_lossy().into_owned(), value);
    }
    all
}

/// The differences between two records, one on a line, for the message of a failed test.
pub fn changes(before: &BTreeMap<PathBuf, String>, after: &BTreeMap<PathBuf, String>) -> String {
    let mut text = String::new();
    for path in before.keys().chain(after.keys().filter(|p| !before.contains_key(*p))) {
        let (old, new) = (before.get(path), after.get(path));
        if old != new {
            text += &format!("{}: {old:?} became {new:?}\n", path.display());
        }
    }
    text
}
