//! `--tar`: an archive of the files that an overlay of the layers shows.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use jc_unshare::{Context, Result};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use crate::sys;
use crate::tar::{Entry, EntryKind, Writer};
use crate::walk::{NonDirectory, Visitor, walk};

/// Writes an archive of the layers, the uppermost first. A socket is an error.
pub fn pack(layers: &[OwnedFd], to: impl Write) -> Result<()> {
    let mut packer = Packer { writer: Writer::new(to) };
    walk(layers, &mut packer)?;
    packer.writer.finish().op("write")
}

/// Writes an archive of those files of the layers whose paths are `kept`, the uppermost layer first.
pub fn pack_some(layers: &[OwnedFd], kept: &BTreeSet<Vec<u8>>, to: impl Write) -> Result<()> {
    let packer = Packer { writer: Writer::new(to) };
    let mut some = Selected { packer, kept, links: BTreeMap::new() };
    walk(layers, &mut some)?;
    some.packer.writer.finish().op("write")
}

/// Passes kept files on.
struct Selected<'a, W: Write> {
    packer: Packer<W>,
    kept: &'a BTreeSet<Vec<u8>>,
    /// The first kept path of a file with several names, by its first path.
    links: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl<W: Write> Visitor for Selected<'_, W> {
    fn directory(&mut self, path: &[u8], directory: &OwnedFd, stat: &Stat) -> Result<()> {
        if path.is_empty() || self.kept.contains(path) {
            self.packer.directory(path, directory, stat)
        } else {
            Ok(())
        }
    }

    fn non_directory(&mut self, file: &NonDirectory<'_>) -> Result<()> {
        if !self.kept.contains(file.path) {
            return Ok(());
        }
        let first = file.first.unwrap_or(file.path);
        let kept = self.links.get(first).cloned();
        if kept.is_none() && file.stat.st_nlink > 1 {
            self.links.insert(first.to_vec(), file.path.to_vec());
        }
        self.packer.non_directory(&NonDirectory { first: kept.as_deref(), ..*file })
    }
}

struct Packer<W: Write> {
    writer: Writer<W>,
}

fn entry(path: Vec<u8>, kind: EntryKind, stat: &Stat, xattrs: sys::Xattrs) -> Entry {
    let size =
        if kind == EntryKind::File { u64::try_from(stat.st_size).unwrap_or_default() } else { 0 };
    let mtime = sys::mtime(stat);
    let mode = stat.st_mode & 0o7777;
    Entry { path, kind, mode, uid: stat.st_uid, gid: stat.st_gid, size, mtime, xattrs }
}

impl<W: Write> Visitor for Packer<W> {
    fn directory(&mut self, path: &[u8], directory: &OwnedFd, stat: &Stat) -> Result<()> {
        let xattrs = sys::xattrs(directory).on("pack", sys::as_path(path))?;
        let name = if path.is_empty() { b"./".to_vec() } else { [path, b"/"].concat() };
        let entry = entry(name, EntryKind::Directory, stat, xattrs);
        self.writer.entry(&entry, &mut io::empty()).on("pack", sys::as_path(path))
    }

    fn non_directory(&mut self, other: &NonDirectory<'_>) -> Result<()> {
        self.write(other).on("pack", sys::as_path(other.path))
    }
}

impl<W: Write> Packer<W> {
    fn write(&mut self, other: &NonDirectory<'_>) -> io::Result<()> {
        let NonDirectory { path, parent, name, stat, first } = other;
        if let Some(first) = first {
            let entry = entry(path.to_vec(), EntryKind::HardLink(first.to_vec()), stat, Vec::new());
            return self.writer.entry(&entry, &mut io::empty());
        }
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let kind = match sys::file_type(stat) {
            FileType::RegularFile => {
                let mut file = sys::open_file(parent, name)?.ok_or(Errno::NOENT)?;
                let entry = entry(path.to_vec(), EntryKind::File, stat, sys::xattrs(&file)?);
                return self.writer.entry(&entry, &mut file);
            }
            FileType::Symlink => {
                EntryKind::Symlink(rustix::fs::readlinkat(parent, *name, Vec::new())?.into_bytes())
            }
            FileType::CharacterDevice => EntryKind::Char(major, minor),
            FileType::BlockDevice => EntryKind::Block(major, minor),
            FileType::Fifo => EntryKind::Fifo,
            _ => return Err(io::Error::other("a socket")),
        };
        let xattrs = sys::xattrs_at(parent, name)?;
        self.writer.entry(&entry(path.to_vec(), kind, stat, xattrs), &mut io::empty())
    }
}
