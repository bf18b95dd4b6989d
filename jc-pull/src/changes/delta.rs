//! A walk over a tree in the format of overlayfs that shows whiteouts and opaque directories. Names in a directory are
//! sorted. The tree may belong to another user, and may change during the walk: no symbolic link is followed, and
//! a directory that is moved away ends the walk.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use jc_unshare::{Context, Error, Result};
use rustix::fs::{FileType, Stat};

use super::marks::{Marks, Opacity};
use crate::dir_stack::DirStack;
use crate::limits::MAX_ENTRIES;
use crate::sys;

/// The longest path from the root, in bytes.
const MAX_PATH: usize = 32 << 10;

/// The receiver of a walk. An error ends the walk.
pub trait Visitor {
    /// A directory, before its content.
    fn directory(&mut self, directory: &Directory<'_>) -> Result<()>;

    /// The end of the content of a directory.
    fn leave(&mut self, directory: &Directory<'_>) -> Result<()>;

    /// A file that is neither a directory nor a whiteout.
    fn file(&mut self, file: &Node<'_>) -> Result<()>;

    /// A name that the tree hides in the lower ones.
    fn whiteout(&mut self, path: &[u8], name: &[u8]) -> Result<()>;

    /// A file that is passed over, with all below it.
    fn passed_over(&mut self) {}
}

/// A directory of the tree.
pub struct Directory<'a> {
    /// The path from the root, which is empty for the root.
    pub path: &'a [u8],
    /// The last component of the path.
    pub name: &'a [u8],
    /// The directory, open for reading.
    pub fd: &'a OwnedFd,
    pub stat: &'a Stat,
    pub is_opaque: bool,
}

/// A file of the tree that is no directory.
pub struct Node<'a> {
    /// The path from the root.
    pub path: &'a [u8],
    pub name: &'a [u8],
    /// The directory that has the name.
    pub parent: &'a OwnedFd,
    pub stat: &'a Stat,
}

/// Walks a tree, except the paths of `skipped` and all below them. Errors are those of the visitor and of reading
/// directories, and a tree beyond the limits.
pub fn walk(
    root: &OwnedFd,
    marks: Marks,
    skipped: &BTreeSet<Vec<u8>>,
    visitor: &mut dyn Visitor,
) -> Result<()> {
    let root = sys::open_dir_to_read(root, ".").on("read", "/")?;
    let stat = rustix::fs::fstat(&root).on("read", "/")?;
    let mut walk = Walk {
        visitor,
        marks,
        skipped,
        stack: DirStack::new(root),
        path: Vec::new(),
        frames: Vec::new(),
        entries: 0,
    };
    walk.enter(0, stat)?;
    while let Some(frame) = walk.frames.last_mut() {
        match frame.names.pop() {
            Some(name) => walk.entry(&name)?,
            None => walk.leave()?,
        }
    }
    Ok(())
}

struct Walk<'a> {
    visitor: &'a mut dyn Visitor,
    marks: Marks,
    skipped: &'a BTreeSet<Vec<u8>>,
    stack: DirStack,
    /// The path of the current directory, or of the entry in it.
    path: Vec<u8>,
    /// The directories between the root and the current one, the root first.
    frames: Vec<Frame>,
    entries: u64,
}

struct Frame {
    /// The names that are left, the next one last.
    names: Vec<Vec<u8>>,
    /// The length of the path of the parent.
    above: usize,
    stat: Stat,
    opacity: Opacity,
}

impl Frame {
    fn directory<'a>(&'a self, path: &'a [u8], fd: &'a OwnedFd) -> Directory<'a> {
        let name = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
        let is_opaque = self.opacity == Opacity::Opaque;
        Directory { path, name, fd, stat: &self.stat, is_opaque }
    }
}

impl Walk<'_> {
    fn shown_path(&self) -> PathBuf {
        Path::new("/").join(sys::as_path(&self.path))
    }

    /// Visits the directory that has become the current one.
    fn enter(&mut self, above: usize, stat: Stat) -> Result<()> {
        let opacity = self
            .marks
            .opacity(self.stack.fd())
            .map_err(|e| e.context(self.shown_path().display()))?;
        let mut frame = Frame { names: Vec::new(), above, stat, opacity };
        self.visitor.directory(&frame.directory(&self.path, self.stack.fd()))?;
        let entries = &mut self.entries;
        let mut is_full = false;
        sys::for_each_name(self.stack.fd(), |name| {
            *entries += 1;
            is_full |= *entries > MAX_ENTRIES;
            if !is_full {
                frame.names.push(name.to_vec());
            }
            Ok(())
        })
        .on("read", self.shown_path())?;
        if is_full {
            return Err(Error::new(format_args!("more than {MAX_ENTRIES} entries")));
        }
        frame.names.sort_unstable_by(|a, b| b.cmp(a));
        self.frames.push(frame);
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        let Some(frame) = self.frames.pop() else { return Ok(()) };
        self.visitor.leave(&frame.directory(&self.path, self.stack.fd()))?;
        self.stack.pop().on("read", self.shown_path())?;
        self.path.truncate(frame.above);
        Ok(())
    }

    fn entry(&mut self, name: &[u8]) -> Result<()> {
        let above = self.path.len();
        if above > 0 {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        if self.path.len() > MAX_PATH {
            return Err(Error::new(format_args!("a path of more than {MAX_PATH} bytes")));
        }
        if self.skipped.contains(&self.path) {
            self.visitor.passed_over();
            self.path.truncate(above);
            return Ok(());
        }
        let stat = sys::stat(self.stack.fd(), name).on("read", self.shown_path())?;
        if sys::file_type(&stat) == FileType::Directory {
            let child = sys::open_dir_to_read(self.stack.fd(), name);
            let child = child.on("read", self.shown_path())?;
            let stat = rustix::fs::fstat(&child).on("read", self.shown_path())?;
            self.stack.push(child).on("read", self.shown_path())?;
            return self.enter(above, stat);
        }
        if sys::is_whiteout(&stat) || self.is_xattr_whiteout(name, &stat)? {
            self.visitor.whiteout(&self.path, name)?;
        } else {
            let (path, parent) = (self.path.as_slice(), self.stack.fd());
            self.visitor.file(&Node { path, name, parent, stat: &stat })?;
        }
        self.path.truncate(above);
        Ok(())
    }

    /// Whether an empty file is a whiteout by an attribute, in a directory that may have such files.
    fn is_xattr_whiteout(&self, name: &[u8], stat: &Stat) -> Result<bool> {
        let may_be = self.frames.last().is_some_and(|f| f.opacity == Opacity::HasXattrWhiteouts);
        if !may_be || sys::file_type(stat) != FileType::RegularFile || stat.st_size != 0 {
            return Ok(false);
        }
        let all = sys::all_xattrs_at(self.stack.fd(), name).on("read", self.shown_path())?;
        Ok(self.marks.are_whiteout(&all))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Writes a line for each call.
    #[derive(Default)]
    struct Lines(Vec<String>);

    impl Lines {
        fn add(&mut self, kind: &str, path: &[u8]) -> Result<()> {
            self.0.push(format!("{kind} {}", String::from_utf8_lossy(path)));
            Ok(())
        }
    }

    impl Visitor for Lines {
        fn directory(&mut self, directory: &Directory<'_>) -> Result<()> {
            self.add(if directory.is_opaque { "opaque" } else { "dir" }, directory.path)
        }

        fn leave(&mut self, directory: &Directory<'_>) -> Result<()> {
            self.add("leave", directory.path)
        }

        fn file(&mut self, file: &Node<'_>) -> Result<()> {
            self.add("file", file.path)
        }

        fn whiteout(&mut self, path: &[u8], _: &[u8]) -> Result<()> {
            self.add("gone", path)
        }

        fn passed_over(&mut self) {
            self.0.push("passed over".to_owned());
        }
    }

    fn open(path: &Path) -> OwnedFd {
        fs::File::open(path).unwrap().into()
    }

    #[test]
    fn names_are_sorted_by_bytes_and_skipped_paths_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("b/proc/x")).unwrap();
        for name in ["a", "B", "b/ü", "b/z", "b.c"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        std::os::unix::fs::symlink("/", dir.path().join("link")).unwrap();
        let skipped = BTreeSet::from([b"b/proc".to_vec()]);
        let mut lines = Lines::default();
        walk(&open(dir.path()), Marks::Both, &skipped, &mut lines).unwrap();
        let expected = [
            "dir ",
            "file B",
            "file a",
            "dir b",
            "passed over",
            "file b/z",
            "file b/ü",
            "leave b",
            "file b.c",
            "file link",
            "leave ",
        ];
        assert_eq!(lines.0, expected);
    }

    #[test]
    fn a_path_has_a_longest_length() {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let name = "d".repeat(250);
        let mut at = open(dir.path());
        for _ in 0..=MAX_PATH / 251 {
            rustix::fs::mkdirat(&at, name.as_str(), rustix::fs::Mode::RWXU).unwrap();
            at = sys::open_dir_to_read(&at, name.as_str()).unwrap();
        }
        let error = walk(&open(dir.path()), Marks::Both, &BTreeSet::new(), &mut Lines::default());
        assert_eq!(error.unwrap_err().to_string(), "a path of more than 32768 bytes");
        jc_unshare::remove_tree(open(dir.path()), name.as_bytes()).unwrap();
    }
}
