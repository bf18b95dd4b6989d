//! Sums of the files of a verified layer, to detect later damage (jc-store(5)).
//!
//! The file has records that end with a NUL: `blob DIGEST SIZE`, and then a record for each change by an
//! entry of the layer. The last record of a path counts.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};

use rustix::fs::RawMode;

use crate::digest::{Digest, invalid};
use crate::manifest::Descriptor;
use crate::tar::{Entry, Time};

/// The longest record, in bytes. The path of a deep file may be long.
const MAX_LINE: u64 = 64 << 20;

/// Writes the sums of one layer.
pub struct Sums {
    out: BufWriter<File>,
}

impl Sums {
    /// Starts the sums of a layer that comes as `blob`.
    pub fn new(file: File, blob: &Descriptor) -> io::Result<Self> {
        let mut out = BufWriter::with_capacity(64 << 10, file);
        write!(out, "blob {} {}\0", blob.digest, blob.size)?;
        Ok(Self { out })
    }

    /// Adds a regular file. `crc` is the sum of the content of a file without holes.
    pub fn file(&mut self, path: &[u8], entry: &Entry, crc: Option<u32>) -> io::Result<()> {
        let Entry { mode, uid, gid, size, mtime, .. } = entry;
        let Time { seconds, nanoseconds } = mtime;
        let crc = crc.map_or_else(|| "-".to_owned(), |crc| format!("{crc:08x}"));
        write!(self.out, "file {mode:o} {uid} {gid} {seconds} {nanoseconds} {size} {crc} ")?;
        self.path(path)
    }

    /// Adds a regular file of unknown content: another name of a file, or a copy from a lower layer.
    pub fn unknown(&mut self, path: &[u8]) -> io::Result<()> {
        self.out.write_all(b"other ")?;
        self.path(path)
    }

    /// Removes a path with all paths below it.
    pub fn removed(&mut self, path: &[u8]) -> io::Result<()> {
        self.out.write_all(b"gone ")?;
        self.path(path)
    }

    fn path(&mut self, path: &[u8]) -> io::Result<()> {
        self.out.write_all(path)?;
        self.out.write_all(b"\0")
    }

    pub fn finish(mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The sum of one regular file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FileSum {
    pub mode: RawMode,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    /// The length in bytes.
    pub size: u64,
    /// The CRC-32 of the content (RFC 1952, 8). Absent for a file with holes.
    pub crc: Option<u32>,
}

#[derive(Debug)]
pub struct LayerSums {
    pub blob: Digest,
    /// The verified length of the blob in bytes.
    pub blob_size: u64,
    /// The regular files of the layer. Absent for a file of unknown content.
    pub files: BTreeMap<Vec<u8>, Option<FileSum>>,
}

impl LayerSums {
    /// Reads all sums of a layer. A malformed record is an error of kind `InvalidData`.
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

    /// Reads the record of the blob alone. A malformed record is an error of kind `InvalidData`.
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
            // The paths that begin with this path and a slash: `0` is the character after the slash.
            let below = [path, b"/"].concat()..[path, b"0"].concat();
            let gone: Vec<_> = self.files.range(below).map(|(path, _)| path.clone()).collect();
            for path in gone {
                self.files.remove(&path);
            }
        } else {
            let mut fields = line.strip_prefix(b"file ")?.splitn(8, |b| *b == b' ');
            let mut next = || std::str::from_utf8(fields.next()?).ok();
            let known = FileSum {
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
