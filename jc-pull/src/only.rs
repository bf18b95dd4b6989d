//! `jc-commit --only`: the listed files of an image, and the files that lead to them or that every program needs.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use jc_unshare::interpreter::of_elf;
use jc_unshare::{Context, Error, Result};
use rustix::fs::FileType;

use crate::merged::{Lookup, Merged};
use crate::sys;

/// The most bytes of a list.
pub const MAX_LIST: u64 = 256 << 20;
/// The most symbolic links of one path in Linux (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// The files that programs read without a word in their own code: users, groups and name services, the configuration
/// of the loader, and mount points.
const FILES: [&str; 14] = [
    "dev",
    "etc/group",
    "etc/ld.so.cache",
    "etc/ld.so.conf",
    "etc/nsswitch.conf",
    "etc/passwd",
    "etc/ssl/cert.pem",
    "etc/ssl/openssl.cnf",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "var/tmp",
];
/// The directories of certificates and of the loader's configuration.
const TREES: [&str; 4] =
    ["etc/ld.so.conf.d", "etc/pki/ca-trust/extracted", "etc/pki/tls/certs", "etc/ssl/certs"];

/// The paths in a list: one on a line, or, if there is a NUL, each with a NUL behind it.
pub fn parse(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let end = if list.contains(&0) { 0 } else { b'\n' };
    list.split(move |b| *b == end).filter(|path| !path.is_empty())
}

/// The paths of an image that a list needs, without a slash at the front. A list without any file of the image is an
/// error. `layers` are those of the image, the uppermost first.
pub fn select(layers: &[OwnedFd], list: &[u8]) -> Result<BTreeSet<Vec<u8>>> {
    let mut selection = Selection {
        merged: Merged::new(layers).on("read", "/")?,
        at: Vec::new(),
        kept: BTreeSet::new(),
    };
    let mut found = 0_usize;
    for path in parse(list) {
        found += usize::from(selection.add(path)?);
    }
    if found == 0 {
        return Err(Error::new("--only: no file of the list is in the image"));
    }
    for path in FILES {
        selection.add(path.as_bytes())?;
    }
    for tree in TREES {
        selection.add_tree(tree.as_bytes().to_vec())?;
    }
    Ok(selection.kept)
}

struct Selection {
    merged: Merged,
    /// The current directory of `merged`.
    at: Vec<Vec<u8>>,
    kept: BTreeSet<Vec<u8>>,
}

impl Selection {
    fn go(&mut self, directory: &[Vec<u8>]) -> rustix::io::Result<()> {
        let shared = self.at.iter().zip(directory).take_while(|(a, b)| a == b).count();
        while self.at.len() > shared {
            self.merged.ascend()?;
            self.at.pop();
        }
        for name in directory.iter().skip(shared) {
            self.merged.descend(name)?;
            self.at.push(name.clone());
        }
        Ok(())
    }

    /// Keeps a file, the directories and links that lead to it, and its interpreter. `false` if the image has no such
    /// file.
    fn add(&mut self, path: &[u8]) -> Result<bool> {
        let shown = sys::as_path(path);
        let interpreter = match self.follow(path).on("read", shown)? {
            Followed::Absent => return Ok(false),
            Followed::Other => None,
            Followed::File(file) => {
                of_elf(|bytes, at| file.read_at(bytes, at)).on("read", shown)?
            }
        };
        if let Some(interpreter) = interpreter {
            self.follow(&interpreter).on("read", sys::as_path(&interpreter))?;
        }
        Ok(true)
    }

    fn follow(&mut self, path: &[u8]) -> std::io::Result<Followed> {
        let mut todo: Vec<Vec<u8>> = path.split(|b| *b == b'/').rev().map(<[u8]>::to_vec).collect();
        let mut at: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    at.pop();
                    continue;
                }
                _ => {}
            }
            self.go(&at)?;
            let found = self.merged.lookup(&name)?;
            let text = found.link_text(&name)?;
            let kept = [at.as_slice(), std::slice::from_ref(&name)].concat().join(&b'/');
            match found {
                Lookup::Absent => return Ok(Followed::Absent),
                Lookup::Directory(_) => at.push(name),
                Lookup::NonDirectory(parent, stat) => match text {
                    Some(text) => {
                        links += 1;
                        if links > MAX_LINKS {
                            return Ok(Followed::Absent);
                        }
                        if text.starts_with(b"/") {
                            at.clear();
                        }
                        todo.extend(text.split(|b| *b == b'/').rev().map(<[u8]>::to_vec));
                    }
                    None if todo.iter().any(|name| !name.is_empty()) => {
                        return Ok(Followed::Absent);
                    }
                    None => {
                        self.kept.insert(kept);
                        let is_file = sys::file_type(&stat) == FileType::RegularFile;
                        let file = if is_file { sys::open_file(&parent, &name)? } else { None };
                        return Ok(file.map_or(Followed::Other, Followed::File));
                    }
                },
            }
            self.kept.insert(kept);
        }
        Ok(Followed::Other)
    }

    /// Keeps all files below a directory.
    fn add_tree(&mut self, top: Vec<u8>) -> Result<()> {
        let mut todo = vec![top];
        while let Some(path) = todo.pop() {
            if !self.add(&path)? {
                continue;
            }
            let at: Vec<Vec<u8>> = path.split(|b| *b == b'/').map(<[u8]>::to_vec).collect();
            let Some((name, above)) = at.split_last() else { continue };
            let shown = sys::as_path(&path);
            self.go(above).on("read", shown)?;
            // A link to a directory stays a link.
            if !matches!(self.merged.lookup(name).on("read", shown)?, Lookup::Directory(_)) {
                continue;
            }
            self.go(&at).on("read", shown)?;
            let mut names = BTreeSet::new();
            for (_, directory) in self.merged.directories() {
                let add = |name: &[u8]| {
                    names.insert(name.to_vec());
                    Ok(())
                };
                sys::for_each_name(directory, add).on("read", shown)?;
            }
            todo.extend(names.into_iter().map(|name| [path.as_slice(), b"/", &name].concat()));
        }
        Ok(())
    }
}

/// The end of a path.
enum Followed {
    Absent,
    File(File),
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_lines_or_nuls() {
        let words = |list: &[u8]| parse(list).map(<[u8]>::to_vec).collect::<Vec<_>>();
        assert_eq!(words(b"/a\n/b\n"), [b"/a", b"/b"]);
        assert_eq!(words(b"/a\n\0/b\0"), [b"/a\n".to_vec(), b"/b".to_vec()]);
        assert!(words(b"\n\n").is_empty());
    }

    #[test]
    fn links_and_directories_that_lead_to_a_file_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let make = |path: &str| std::fs::write(dir.path().join(path), "x").unwrap();
        for name in ["usr", "usr/lib", "etc", "etc/ssl", "etc/ssl/certs"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        std::os::unix::fs::symlink("usr/lib", dir.path().join("lib")).unwrap();
        std::os::unix::fs::symlink("b", dir.path().join("usr/lib/a")).unwrap();
        std::os::unix::fs::symlink("/usr/lib/cert", dir.path().join("etc/ssl/certs/1")).unwrap();
        std::os::unix::fs::symlink("loop", dir.path().join("loop")).unwrap();
        for name in ["usr/lib/b", "usr/lib/c", "usr/lib/cert", "etc/passwd"] {
            make(name);
        }
        let root: OwnedFd = File::open(dir.path()).unwrap().into();
        let layers = [root];
        let list = b"/lib/../lib/a\n/absent\n/loop\n/usr/lib/c/x\n";
        let kept = select(&layers, list).unwrap();
        let kept: Vec<&str> = kept.iter().map(|path| std::str::from_utf8(path).unwrap()).collect();
        assert_eq!(
            kept,
            [
                "etc",
                "etc/passwd",
                "etc/ssl",
                "etc/ssl/certs",
                "etc/ssl/certs/1",
                "lib",
                "loop",
                "usr",
                "usr/lib",
                "usr/lib/a",
                "usr/lib/b",
                "usr/lib/cert",
            ]
        );
        assert!(select(&layers, b"/absent").is_err());
    }
}
