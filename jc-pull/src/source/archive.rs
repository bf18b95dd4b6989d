//! Random access to the files in a tar archive, from a file or from stdin.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jc_unshare::temporary::random;
use jc_unshare::{Context, Error, Result, strerror};

use crate::compress::Decoder;
use crate::digest::invalid;
use crate::limits::Allowance;
use crate::tar::{EntryKind, Reader};

/// The most files of an archive.
const MAX_MEMBERS: usize = 1 << 20;

/// The most bytes of all names, which are in memory.
const MAX_NAMES: usize = 64 << 20;

/// An archive with an index of its files.
pub struct Archive {
    path: PathBuf,
    file: Arc<File>,
    members: BTreeMap<Vec<u8>, Member>,
}

#[derive(Clone)]
enum Member {
    /// The first byte of the content, and its length.
    File(u64, u64),
    /// The name of another file.
    Link(Vec<u8>),
}

impl Archive {
    /// Opens `path`, or `-` for stdin, and reads all headers. A compressed archive and a pipe are copied
    /// first. A malformed archive is an error, and so is one that exceeds a limit.
    pub fn open(path: &Path, spool: Spool<'_>) -> Result<Self> {
        let mut file = if path.as_os_str() == "-" {
            spool.copy(io::stdin().lock()).map_err(|e| e.context("read stdin"))?
        } else {
            File::open(path).on("open", path)?
        };
        let known = if path.as_os_str() == "-" { Ok(path.to_owned()) } else { path.canonicalize() };
        let known = known.on("open", path)?;
        let mut start = [0; 4];
        let n = file.read(&mut start).on("read", path)?;
        let packed = matches!(start.get(..n), Some([0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd]));
        let seekable = file.seek(SeekFrom::Start(0)).is_ok();
        if packed || !seekable {
            let whole = io::Cursor::new(start).take(if seekable { 0 } else { n as u64 });
            let decoder = Decoder::new(BufReader::new(whole.chain(&file))).on("read", path)?;
            file = spool.copy(decoder).map_err(|e| e.context(path.display()))?;
        }
        let file = Arc::new(file);
        let members = members(&file)
            .map_err(|e| Error::new(format_args!("{}: {}", path.display(), strerror(&e))))?;
        Ok(Self { path: known, file, members })
    }

    /// The absolute path of the archive, or `-`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The content of a file, and its length in bytes. Links are followed.
    pub fn file(&self, name: &str) -> Option<(Part, u64)> {
        let mut name = normalize(name.as_bytes());
        for _ in 0..8 {
            match self.members.get(&name)? {
                Member::File(at, length) => {
                    let file = Arc::clone(&self.file);
                    return Some((Part { file, at: *at, left: *length }, *length));
                }
                Member::Link(target) => name.clone_from(target),
            }
        }
        None
    }
}

/// The content of one file.
pub struct Part {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let n = self.file.read_at(buffer.get_mut(..most).unwrap_or_default(), self.at)?;
        self.at += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

/// The place and the limit of a copy of an archive.
#[derive(Clone, Copy)]
pub struct Spool<'a> {
    /// The directory of the copy, which has no name there.
    pub directory: &'a Path,
    pub allowance: Allowance,
}

impl Spool<'_> {
    /// Copies `from` into a file without a name.
    fn copy(&self, from: impl Read) -> Result<File> {
        let mut file = unnamed_file(self.directory)?;
        let mut from = Bounded { inner: from, allowance: self.allowance, exceeded: None };
        let copied = io::copy(&mut from, &mut file);
        if let Some(error) = from.exceeded {
            return Err(error);
        }
        copied.op("copy")?;
        file.seek(SeekFrom::Start(0)).op("seek")?;
        Ok(file)
    }
}

/// Makes a file in a directory, without a name there.
pub fn unnamed_file(directory: &Path) -> Result<File> {
    let path = directory.join(format!("spool-{:016x}", random()));
    let mut options = File::options();
    let file = options.read(true).write(true).create_new(true).open(&path).on("create", &path)?;
    match std::fs::remove_file(&path) {
        // The sweep of another program has removed the file.
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        other => other.on("remove", &path)?,
    }
    Ok(file)
}

/// A reader that fails after the bytes of the allowance.
struct Bounded<R> {
    inner: R,
    allowance: Allowance,
    exceeded: Option<Error>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.allowance.bytes(n as u64).map_err(|e| {
            let text = invalid(e.to_string());
            self.exceeded = Some(e);
            text
        })?;
        Ok(n)
    }
}

fn members(file: &File) -> io::Result<BTreeMap<Vec<u8>, Member>> {
    let mut members = BTreeMap::new();
    let mut names = 0_usize;
    let mut reader = Reader::new(BufReader::new(file));
    while let Some(entry) = reader.entry()? {
        if members.len() == MAX_MEMBERS {
            return Err(io::Error::other("too many files in the archive"));
        }
        let name = normalize(&entry.path);
        let member = match &entry.kind {
            EntryKind::File => Member::File(reader.get_mut().stream_position()?, entry.size),
            EntryKind::HardLink(target) => Member::Link(normalize(target)),
            EntryKind::Symlink(target) => {
                let parent = name.rsplitn(2, |b| *b == b'/').nth(1).unwrap_or_default();
                Member::Link(normalize(&[parent, b"/", target].concat()))
            }
            _ => continue,
        };
        names += name.len() + if let Member::Link(target) = &member { target.len() } else { 0 };
        if names > MAX_NAMES {
            return Err(io::Error::other("the names in the archive are too long"));
        }
        members.insert(name, member);
    }
    Ok(members)
}

/// A path without `.`, `..` and empty components, which cannot leave the archive.
fn normalize(name: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        for (name, plain) in
            [("a/b", "a/b"), ("./a//b/", "a/b"), ("a/../b", "b"), ("../../a", "a"), ("", "")]
        {
            assert_eq!(normalize(name.as_bytes()), plain.as_bytes(), "{name}");
        }
    }
}
