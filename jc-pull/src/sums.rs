//! What a layer's files were when the layer had been verified, so that damage can be found later.
//!
//! A file of records, each of them ended by a NUL: `blob DIGEST SIZE` for what the layer came as, and
//! then, in the order of the layer, what follows from its entries. Of one path the last counts.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};

use rustix::fs::RawMode;

use crate::digest::{Digest, invalid};
use crate::manifest::Descriptor;
use crate::tar::{Entry, Time};

/// The longest record that is read, in bytes: the path of a layer's deepest file may be long.
const MAX_LINE: u64 = 64 << 20;

/// Writes the records of one layer.
pub struct Sums {
    out: BufWriter<File>,
}

impl Sums {
    /// Begins, for a layer that comes as that blob.
    pub fn new(file: File, blob: &Descriptor) -> io::Result<Self> {
        let mut out = BufWriter::with_capacity(64 << 10, file);
        write!(out, "blob {} {}\0", blob.digest, blob.size)?;
        Ok(Self { out })
    }

    /// A regular file. `crc` is that of its content, where it has no holes.
    pub fn file(&mut self, path: &[u8], entry: &Entry, crc: Option<u32>) -> io::Result<()> {
        let Entry { mode, uid, gid, size, mtime, .. } = entry;
        let Time { seconds, nanoseconds } = mtime;
        let crc = crc.map_or_else(|| "-".to_owned(), |crc| format!("{crc:08x}"));
        write!(self.out, "file {mode:o} {uid} {gid} {seconds} {nanoseconds} {size} {crc} ")?;
        self.path(path)
    }

    /// A regular file about which nothing is known: another name, or one from a layer beneath.
    pub fn other(&mut self, path: &[u8]) -> io::Result<()> {
        self.out.write_all(b"other ")?;
        self.path(path)
    }

    /// Something has gone from there, with all beneath it.
    pub fn gone(&mut self, path: &[u8]) -> io::Result<()> {
        self.out.write_all(b"gone ")?;
        self.path(path)
    }

    fn path(&mut self, path: &[u8]) -> io::Result<()> {
        self.out.write_all(path)?;
        self.out.write_all(b"\0")
    }

    /// Ends.
    pub fn finish(mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// What is known of one regular file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Known {
    /// Permissions.
    pub mode: RawMode,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Time,
    /// Length in bytes.
    pub size: u64,
    /// CRC-32 of the content (RFC 1952, 8); not of a file with holes.
    pub crc: Option<u32>,
}

/// The records of one layer, read.
#[derive(Debug)]
pub struct Record {
    /// What it came as.
    pub blob: Digest,
    /// That blob's length in bytes, verified.
    pub blob_size: u64,
    /// Its regular files; nothing where nothing is known.
    pub files: BTreeMap<Vec<u8>, Option<Known>>,
}

impl Record {
    /// Reads all of it.
    pub fn read(file: File) -> io::Result<Self> {
        let mut reader = BufReader::new(file);
        let mut record = Self::read_blob(&mut reader)?;
        let mut line = Vec::new();
        while reader.by_ref().take(MAX_LINE).read_until(0, &mut line)? > 0 {
            record.add(&line).ok_or_else(|| invalid("a malformed record"))?;
            line.clear();
        }
        Ok(record)
    }

    /// Reads what the layer came as, and no more.
    pub fn read_blob(reader: &mut impl BufRead) -> io::Result<Self> {
        let mut line = Vec::new();
        reader.take(MAX_LINE).read_until(0, &mut line)?;
        let parse = || {
            let text = std::str::from_utf8(line.strip_suffix(b"\0")?).ok()?;
            let (digest, size) = text.strip_prefix("blob ")?.split_once(' ')?;
            Some((Digest::parse(digest).ok()?, size.parse().ok()?))
        };
        let (blob, blob_size) = parse().ok_or_else(|| invalid("a malformed record"))?;
        Ok(Self { blob, blob_size, files: BTreeMap::new() })
    }

    fn add(&mut self, line: &[u8]) -> Option<()> {
        let line = line.strip_suffix(b"\0")?;
        if let Some(path) = line.strip_prefix(b"other ") {
            self.files.insert(path.to_vec(), None);
        } else if let Some(path) = line.strip_prefix(b"gone ") {
            self.files.remove(path);
            // All that begins with the path and a slash: a zero is the character behind it.
            let beneath = [path, b"/"].concat()..[path, b"0"].concat();
            let gone: Vec<_> = self.files.range(beneath).map(|(path, _)| path.clone()).collect();
            for path in gone {
                self.files.remove(&path);
            }
        } else {
            let mut fields = line.strip_prefix(b"file ")?.splitn(8, |b| *b == b' ');
            let mut next = || std::str::from_utf8(fields.next()?).ok();
            let known = Known {
                mode: RawMode::from_str_radix(next()?, 8).ok()?,
                uid: next()?.parse().ok()?,
                gid: next()?.parse().ok()?,
                mtime: Time { seconds: next()?.parse().ok()?, nanoseconds: next()?.parse().ok()? },
                size: next()?.parse().ok()?,
                crc: match next()? {
                    "-" => None,
                    text => Some(u32::from_str_radix(text, 16).ok()?),
                },
            };
            self.files.insert(fields.next()?.to_vec(), Some(known));
        }
        Some(())
    }
}
