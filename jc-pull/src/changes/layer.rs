//! A tree in the format of overlayfs as an OCI layer (OCI image-spec layer.md). The same tree gives the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use jc_unshare::{Context, Error, Result};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::base::Base;
use super::delta::{Directory, Node, Visitor, walk};
use super::difference::{Difference, compare};
use super::lookup::{Below, Lower, Position};
use super::marks::Marks;
use super::pattern::Patterns;
use crate::sys::{self, Xattrs};
use crate::tar::{Entry, EntryKind, Time, Writer};
use crate::unpack::path::{OPAQUE_MARK, WHITEOUT};

/// The attribute with the label of a security policy, which belongs to the host and not to the layer.
const LABEL: &[u8] = b"security.selinux";

/// The form of the archive.
#[derive(Clone, Debug, Default)]
pub struct LayerOptions {
    /// Later modification times become this time.
    pub latest: Option<Time>,
    /// The files to write. Without patterns these are all files.
    pub patterns: Patterns,
}

impl LayerOptions {
    /// The options with the latest time of `SOURCE_DATE_EPOCH`, in seconds. A word that is no number is an error.
    pub fn from_env() -> Result<Self> {
        const NAME: &str = "SOURCE_DATE_EPOCH";
        let Some(word) = env::var_os(NAME).filter(|word| !word.is_empty()) else {
            return Ok(Self::default());
        };
        let seconds = word.to_str().and_then(|word| word.parse().ok());
        let seconds = seconds.ok_or_else(|| {
            Error::new(format_args!("{NAME}={}: not a number of seconds", word.display()))
        })?;
        let latest = Some(Time { seconds, nanoseconds: 0 });
        Ok(Self { latest, ..Self::default() })
    }
}

/// Writes a tree as a layer. Sockets are left out, since no layer has them. A file whose name is that of a whiteout in
/// a layer is an error.
pub fn write_tree(
    root: &OwnedFd,
    marks: Marks,
    options: &LayerOptions,
    to: impl Write,
) -> Result<()> {
    let mut writer = LayerWriter::new(to, options);
    writer.tree(root, marks, &Position::unknown(), &BTreeSet::new())?;
    writer.finish()
}

/// Writes a tree as a layer over the `lower` directories, the uppermost first. Whiteouts of names that these lack are
/// left out, and so is a root that is like theirs.
pub fn write_over(
    root: &OwnedFd,
    lower: Vec<OwnedFd>,
    options: &LayerOptions,
    to: impl Write,
) -> Result<()> {
    let base = Base::of_open(lower);
    let mut writer = LayerWriter::new(to, options);
    writer.tree(root, Marks::Both, &Position::over(&base, b""), &BTreeSet::new())?;
    writer.finish()
}

/// Writes one tree after the other into one layer.
pub struct LayerWriter<'a, W: Write> {
    writer: Writer<W>,
    options: &'a LayerOptions,
    /// The directory of the tree in the layer: empty, or a path that ends with a slash.
    prefix: Vec<u8>,
    marks: Marks,
    below: Below,
    /// The first paths of files with several names, by device and inode.
    links: BTreeMap<(u64, u64), Vec<u8>>,
    frames: Vec<Frame>,
}

/// A directory between the root and the current one.
struct Frame {
    /// The entry of a directory that has not changed itself. Only an entry below it makes the layer list the directory.
    waiting: Option<Entry>,
    /// Whether the tree has entries in the directory, which may be the reason for another modification time.
    has_entries: bool,
    difference: Difference,
}

impl<'a, W: Write> LayerWriter<'a, W> {
    pub fn new(to: W, options: &'a LayerOptions) -> Self {
        Self {
            writer: Writer::new(to),
            options,
            prefix: Vec::new(),
            marks: Marks::Both,
            below: Below::unknown(),
            links: BTreeMap::new(),
            frames: Vec::new(),
        }
    }

    /// Writes a tree at its position over the lower directories, except the `skipped` paths.
    pub fn tree(
        &mut self,
        root: &OwnedFd,
        marks: Marks,
        position: &Position<'_>,
        skipped: &BTreeSet<Vec<u8>>,
    ) -> Result<()> {
        self.marks = marks;
        self.prefix = position.prefix();
        self.below = position.open()?;
        self.links.clear();
        self.frames.clear();
        walk(root, marks, skipped, self)
    }

    pub fn finish(self) -> Result<()> {
        self.writer.finish().op("write")
    }

    fn path(&self, path: &[u8]) -> Vec<u8> {
        [self.prefix.as_slice(), path].concat()
    }

    fn is_selected(&self, path: &[u8]) -> bool {
        self.options.patterns.match_path(&self.path(path))
    }

    fn entry(&self, path: Vec<u8>, kind: EntryKind, stat: &Stat, xattrs: Xattrs) -> Entry {
        let is_file = kind == EntryKind::File;
        // A size is not negative.
        let size = if is_file { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 };
        let mtime = sys::mtime(stat);
        let mtime = self.options.latest.map_or(mtime, |latest| mtime.min(latest));
        let mode = stat.st_mode & 0o7777;
        Entry { path, kind, mode, uid: stat.st_uid, gid: stat.st_gid, size, mtime, xattrs }
    }

    /// The attributes of a file in a layer.
    fn xattrs(&self, all: Xattrs, path: &[u8]) -> Result<Xattrs> {
        let shown = self.marks.shown(all);
        let mut shown = shown.map_err(|e| e.context(sys::as_path(path).display()))?;
        shown.retain(|(key, _)| key != LABEL);
        Ok(shown)
    }

    /// Writes an entry behind those of the directories above it.
    fn write(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<()> {
        for above in self.frames.iter_mut().filter_map(|frame| frame.waiting.take()) {
            self.writer.entry(&above, &mut io::empty()).on("pack", sys::as_path(&above.path))?;
        }
        self.writer.entry(entry, content).on("pack", sys::as_path(&entry.path))
    }

    fn set_has_entries(&mut self) {
        if let Some(frame) = self.frames.last_mut() {
            frame.has_entries = true;
        }
    }

    /// Writes an empty file that stands for a whiteout or an opaque directory.
    fn mark(&mut self, path: Vec<u8>) -> Result<()> {
        let entry = Entry {
            path,
            kind: EntryKind::File,
            mode: 0o600,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: Time::default(),
            xattrs: Xattrs::new(),
        };
        self.write(&entry, &mut io::empty())
    }

    fn pack(&mut self, file: &Node<'_>) -> Result<()> {
        let path = self.path(file.path);
        let shown = sys::as_path(&path).to_owned();
        let Node { name, parent, stat, .. } = file;
        let key = sys::identity(stat);
        if let Some(first) = self.links.get(&key) {
            let kind = EntryKind::HardLink(first.clone());
            let entry = self.entry(path, kind, stat, Xattrs::new());
            return self.write(&entry, &mut io::empty());
        }
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let kind = match sys::file_type(stat) {
            FileType::RegularFile => {
                let opened = sys::open_file(parent, name).on("open", &shown)?;
                let mut file = opened.ok_or(Errno::NOENT).on("open", &shown)?;
                let stat = rustix::fs::fstat(&file).on("stat", &shown)?;
                let all = sys::all_xattrs(&file).on("read", &shown)?;
                let xattrs = self.xattrs(all, &path)?;
                let entry = self.entry(path.clone(), EntryKind::File, &stat, xattrs);
                self.write(&entry, &mut file)?;
                self.remember(&stat, path);
                return Ok(());
            }
            FileType::Symlink => {
                let text = rustix::fs::readlinkat(parent, *name, Vec::new());
                EntryKind::Symlink(text.on("readlink", &shown)?.into_bytes())
            }
            FileType::CharacterDevice => EntryKind::Char(major, minor),
            FileType::BlockDevice => EntryKind::Block(major, minor),
            FileType::Fifo => EntryKind::Fifo,
            _ => return Ok(()),
        };
        let all = sys::all_xattrs_at(parent, name).on("read", &shown)?;
        let xattrs = self.xattrs(all, &path)?;
        let entry = self.entry(path.clone(), kind, stat, xattrs);
        self.write(&entry, &mut io::empty())?;
        self.remember(stat, path);
        Ok(())
    }

    fn remember(&mut self, stat: &Stat, path: Vec<u8>) {
        if stat.st_nlink > 1 {
            self.links.insert(sys::identity(stat), path);
        }
    }
}

/// Refuses a name that unpackers take for a whiteout.
fn check_name(name: &[u8]) -> Result<()> {
    if !name.starts_with(WHITEOUT) {
        return Ok(());
    }
    Err(Error::new("has the name of a whiteout, so a layer cannot have it"))
}

impl<W: Write> Visitor for LayerWriter<'_, W> {
    fn directory(&mut self, directory: &Directory<'_>) -> Result<()> {
        self.set_has_entries();
        let Directory { path, name, fd, stat, is_opaque } = directory;
        let (full, is_root) = (self.path(path), path.is_empty());
        let shown = sys::as_path(&full).to_owned();
        let lower = self.below.enter(name, is_root).on("read", &shown)?;
        let xattrs = self.xattrs(sys::all_xattrs(fd).on("read", &shown)?, &full)?;
        let mut frame = Frame { waiting: None, has_entries: false, difference: Difference::None };
        if is_root && lower.is_like_root(stat, &xattrs)? {
            self.frames.push(frame);
            return Ok(());
        }
        check_name(name).map_err(|e| e.context(shown.display()))?;
        if !self.is_selected(path) {
            self.frames.push(frame);
            return Ok(());
        }
        let name = match full.as_slice() {
            b"" => b"./".to_vec(),
            other => [other, if other.ends_with(b"/") { b"" } else { b"/" }].concat(),
        };
        let entry = self.entry(name.clone(), EntryKind::Directory, stat, xattrs);
        match &lower {
            Lower::Directory(lower) if !is_root && !is_opaque => {
                frame.difference = compare(directory, lower, self.marks)?;
            }
            _ => frame.difference = Difference::Metadata,
        }
        if frame.difference != Difference::Metadata {
            frame.waiting = Some(entry);
            self.frames.push(frame);
            return Ok(());
        }
        self.write(&entry, &mut io::empty())?;
        if *is_opaque && lower.may_be_directory() {
            let name = name.strip_prefix(b"./").unwrap_or(&name);
            self.mark([name, OPAQUE_MARK].concat())?;
        }
        self.frames.push(frame);
        Ok(())
    }

    fn leave(&mut self, directory: &Directory<'_>) -> Result<()> {
        self.below.leave().on("read", sys::as_path(directory.path))?;
        let Some(frame) = self.frames.pop() else { return Ok(()) };
        match (frame.waiting, frame.difference) {
            (Some(entry), Difference::Time) if !frame.has_entries => {
                self.write(&entry, &mut io::empty())
            }
            _ => Ok(()),
        }
    }

    fn file(&mut self, file: &Node<'_>) -> Result<()> {
        self.set_has_entries();
        if !self.is_selected(file.path) {
            return Ok(());
        }
        let context = |e: Error| e.context(sys::as_path(file.path).display());
        check_name(file.name).map_err(context)?;
        self.pack(file)
    }

    fn passed_over(&mut self) {
        self.set_has_entries();
    }

    fn whiteout(&mut self, path: &[u8], name: &[u8]) -> Result<()> {
        self.set_has_entries();
        if !self.is_selected(path) || self.below.lacks(name).on("read", sys::as_path(path))? {
            return Ok(());
        }
        check_name(name).map_err(|e| e.context(sys::as_path(path).display()))?;
        let full = self.path(path);
        let parent = full.get(..full.len() - name.len()).unwrap_or_default();
        self.mark([parent, WHITEOUT, name].concat())
    }
}
