//! Entries with their extension headers.

use std::io::{self, BufRead, Read};

use rustix::fs::RawMode;

use super::header::{BLOCK, GID, Header, MODE, MTIME, SIZE, UID};
use super::pax::Pax;
use super::sparse::{self, Piece};
use super::{Entry, EntryKind};
use crate::digest::invalid;

/// The longest extension header, in bytes. The reader has a header in memory.
const MAX_EXTENSION: u64 = 1 << 20;
/// The most extension headers of one entry.
const MAX_EXTENSIONS: usize = 16;
/// The longest path or link of Linux (PATH_MAX), in bytes.
const MAX_PATH: usize = 4096;

/// Reads an archive once, from its start to its end.
pub struct Reader<R> {
    inner: R,
    /// The rest of the content of the current entry.
    left: u64,
    padding: u64,
    /// The offset of the next content in the file, in bytes.
    position: u64,
    /// The rest of the pieces of a file with holes, the next one last.
    pieces: Option<Vec<Piece>>,
}

impl<R: BufRead> Reader<R> {
    pub fn new(inner: R) -> Self {
        Self { inner, left: 0, padding: 0, position: 0, pieces: None }
    }

    /// The inner reader, at the content that is not consumed yet.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// The inner reader. After the last entry it is behind the end of the archive.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// The next entry. The rest of the content of the current entry is skipped. The result is `None` at
    /// the end of the archive. Errors of kind `InvalidData` and `UnexpectedEof` are about the archive.
    pub fn entry(&mut self) -> io::Result<Option<Entry>> {
        let mut pax = Pax::default();
        let (mut long_path, mut long_link) = (None, None);
        for _ in 0..MAX_EXTENSIONS {
            self.skip()?;
            let mut block = [0; BLOCK];
            let Some(header) = self.header(&mut block)? else {
                return match (long_path, long_link) {
                    (None, None) if pax == Pax::default() => Ok(None),
                    _ => Err(invalid("the archive ends before the entry that it announces")),
                };
            };
            match header.typeflag() {
                b'x' => pax.read(&self.extension(&header)?)?,
                // Records for all entries that follow. Engines in Go skip them, so images have been built
                // and tested without them. git-archive(1) writes a comment there.
                b'g' => self.begin(unsigned(header.number(SIZE)?, "size")?)?,
                b'L' => long_path = Some(c_string(self.extension(&header)?)),
                b'K' => long_link = Some(c_string(self.extension(&header)?)),
                _ => {
                    pax.path = long_path.or(pax.path);
                    pax.link_path = long_link.or(pax.link_path);
                    return self.read_entry(&header, pax).map(Some);
                }
            }
        }
        Err(invalid("too many extension headers in front of one entry"))
    }

    /// The next piece of the content of the current entry, empty at its end. [`Reader::consume`]
    /// advances. `UnexpectedEof` if the archive is truncated.
    pub fn content(&mut self) -> io::Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let limit = match &mut self.pieces {
            None => self.left,
            Some(pieces) => {
                while pieces.last().is_some_and(|piece| piece.length == 0) {
                    pieces.pop();
                }
                let Some(piece) = pieces.last() else { return Ok(&[]) };
                self.position = piece.offset;
                piece.length
            }
        };
        let buffer = self.inner.fill_buf()?;
        if buffer.is_empty() {
            return Err(truncated());
        }
        let n = usize::try_from(limit).map_or(buffer.len(), |limit| limit.min(buffer.len()));
        Ok(buffer.get(..n).unwrap_or_default())
    }

    /// The offset in the file of the last piece from [`Reader::content`], in bytes.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Advances by `n` bytes of content, at most the length of the last piece.
    pub fn consume(&mut self, n: usize) {
        self.inner.consume(n);
        self.left = self.left.saturating_sub(n as u64);
        self.position += n as u64;
        if let Some(piece) = self.pieces.as_mut().and_then(|pieces| pieces.last_mut()) {
            piece.offset += n as u64;
            piece.length = piece.length.saturating_sub(n as u64);
        }
    }

    fn skip(&mut self) -> io::Result<()> {
        let rest = self.left + self.padding;
        (self.left, self.padding) = (0, 0);
        let passed = io::copy(&mut self.inner.by_ref().take(rest), &mut io::sink())?;
        if passed == rest { Ok(()) } else { Err(truncated()) }
    }

    /// The result is `None` at the end of the archive: two blocks of zeros, or no more blocks.
    fn header<'b>(&mut self, block: &'b mut [u8; BLOCK]) -> io::Result<Option<Header<'b>>> {
        if !self.block(block)? {
            return Ok(None);
        }
        if block.iter().any(|b| *b != 0) {
            return Header::parse(block);
        }
        if self.block(block)? && block.iter().any(|b| *b != 0) {
            return Err(invalid("a lone block of zeros inside the archive"));
        }
        Ok(None)
    }

    fn block(&mut self, block: &mut [u8; BLOCK]) -> io::Result<bool> {
        if self.inner.fill_buf()?.is_empty() {
            return Ok(false);
        }
        self.inner.read_exact(block).map(|()| true).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => truncated(),
            _ => e,
        })
    }

    fn begin(&mut self, size: u64) -> io::Result<()> {
        let block = BLOCK as u64;
        self.padding = (block - size % block) % block;
        (self.left, self.position, self.pieces) = (size, 0, None);
        // The sum of size and padding cannot overflow.
        if size > i64::MAX.unsigned_abs() { Err(invalid("an entry's size")) } else { Ok(()) }
    }

    fn extension(&mut self, header: &Header<'_>) -> io::Result<Vec<u8>> {
        let size = unsigned(header.number(SIZE)?, "size")?;
        if size > MAX_EXTENSION {
            return Err(invalid("an extension header of more than 1 MiB"));
        }
        self.begin(size)?;
        let mut bytes = Vec::new();
        while !self.content()?.is_empty() {
            let piece = self.content()?;
            let n = piece.len();
            bytes.extend_from_slice(piece);
            self.consume(n);
        }
        Ok(bytes)
    }

    fn read_entry(&mut self, header: &Header<'_>, mut pax: Pax) -> io::Result<Entry> {
        let path = pax.sparse.name.take().or(pax.path.take()).unwrap_or_else(|| header.path());
        let link = pax.link_path.take().unwrap_or_else(|| header.link_name());
        if path.len() > MAX_PATH || link.len() > MAX_PATH {
            return Err(invalid("a name of more than 4096 bytes"));
        }
        let size = match pax.size {
            Some(size) => size,
            None => unsigned(header.number(SIZE)?, "size")?,
        };
        let kind = kind(header, &path, link)?;
        // Only files have content. Old writers set the size of a link to that of its target.
        let size = if kind == EntryKind::File { size } else { 0 };
        self.begin(size)?;
        let size = if kind == EntryKind::File { self.sparse(header, &pax, size)? } else { size };
        let mtime = super::Time { seconds: header.number(MTIME)?, nanoseconds: 0 };
        Ok(Entry {
            path,
            kind,
            mode: RawMode::try_from(header.number(MODE)? & 0o7777).unwrap_or_default(),
            uid: id(pax.uid, header.number(UID)?, "uid")?,
            gid: id(pax.gid, header.number(GID)?, "gid")?,
            size,
            mtime: pax.mtime.unwrap_or(mtime),
            xattrs: pax.xattrs.into_iter().collect(),
        })
    }
}

impl<R: BufRead> Reader<R> {
    /// Reads the map of a file with holes, which has `stored` bytes of content. Returns the size of the
    /// file.
    fn sparse(&mut self, header: &Header<'_>, pax: &Pax, stored: u64) -> io::Result<u64> {
        let sparse = &pax.sparse;
        let (size, mut pieces) = if header.typeflag() == b'S' {
            self.old_sparse(header)?
        } else {
            match (sparse.major, sparse.minor, sparse.size, &sparse.map) {
                (None, None, None, None) => return Ok(stored),
                (Some(1), Some(0), Some(size), None) => {
                    (size, sparse::read_leading(|| self.data_block())?)
                }
                (None, None, Some(size), Some(map)) => (size, map.clone()),
                _ => return Err(invalid("a sparse file of an unknown form")),
            }
        };
        sparse::check(&pieces, size, self.left)?;
        pieces.reverse();
        self.pieces = Some(pieces);
        Ok(size)
    }

    fn old_sparse(&mut self, header: &Header<'_>) -> io::Result<(u64, Vec<Piece>)> {
        let (array, mut more, size) = header.sparse()?;
        let mut pieces = Vec::new();
        sparse::read_array(array, &mut pieces)?;
        while more {
            let mut block = [0; BLOCK];
            if !self.block(&mut block)? {
                return Err(truncated());
            }
            let (array, rest) = block.split_at(504);
            sparse::read_array(array, &mut pieces)?;
            more = rest.first() != Some(&0);
        }
        Ok((unsigned(size, "size")?, pieces))
    }

    fn data_block(&mut self) -> io::Result<[u8; BLOCK]> {
        let mut block = [0; BLOCK];
        let left = self.left.checked_sub(BLOCK as u64);
        self.left = left.ok_or_else(|| invalid("a malformed sparse map"))?;
        if self.block(&mut block)? { Ok(block) } else { Err(truncated()) }
    }
}

fn kind(header: &Header<'_>, path: &[u8], link: Vec<u8>) -> io::Result<EntryKind> {
    Ok(match header.typeflag() {
        // Before ustar, a directory was a file whose name ends with a slash.
        b'0' | 0 | b'7' if path.ends_with(b"/") => EntryKind::Directory,
        b'0' | 0 | b'7' | b'S' => EntryKind::File,
        b'1' => EntryKind::HardLink(link),
        b'2' => EntryKind::Symlink(link),
        flag @ (b'3' | b'4') => {
            let (major, minor) = header.device()?;
            let number = |n: i64| u32::try_from(n).map_err(|_| invalid("a device number"));
            let (major, minor) = (number(major)?, number(minor)?);
            if flag == b'3' {
                EntryKind::Char(major, minor)
            } else {
                EntryKind::Block(major, minor)
            }
        }
        b'5' => EntryKind::Directory,
        b'6' => EntryKind::Fifo,
        other => {
            return Err(named(path, &format!("unknown type {:?}", char::from(other))));
        }
    })
}

fn named(path: &[u8], why: &str) -> io::Error {
    invalid(format!("entry {}: {why}", String::from_utf8_lossy(path)))
}

fn id(pax: Option<u64>, header: i64, what: &str) -> io::Result<u32> {
    let id = pax.map_or_else(|| unsigned(header, what), Ok)?;
    // chown(2) ignores the ID -1, and the file would stay root's.
    u32::try_from(id)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| invalid(format!("{what} {id}")))
}

fn unsigned(number: i64, what: &str) -> io::Result<u64> {
    u64::try_from(number).map_err(|_| invalid(format!("a negative {what}")))
}

/// The text of a GNU long name, which ends with a NUL.
fn c_string(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|b| *b == 0) {
        bytes.truncate(end);
    }
    bytes
}

fn truncated() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the tar archive is truncated")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(bytes: &[u8]) -> io::Result<Vec<(Entry, Vec<u8>)>> {
        let mut reader = Reader::new(bytes);
        let mut found = Vec::new();
        while let Some(entry) = reader.entry()? {
            let mut content = Vec::new();
            loop {
                let piece = reader.content()?.to_vec();
                if piece.is_empty() {
                    break;
                }
                reader.consume(piece.len());
                content.extend(piece);
            }
            found.push((entry, content));
        }
        Ok(found)
    }

    fn header(kind: u8, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_size(size);
        header.set_mode(0o4755);
        header.set_mtime(7);
        header
    }

    fn archive(members: &[(u8, &str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (kind, path, content) in members {
            let mut header = header(*kind, content.len() as u64);
            header.set_path(path).unwrap();
            header.set_cksum();
            builder.append(&header, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn names_of_every_length_come_out_whole() {
        for length in [1, 99, 100, 101, 200, 255, 4096] {
            let path = "abcde/f/".chars().cycle().take(length - 1).chain(['z']).collect::<String>();
            let mut builder = tar::Builder::new(Vec::new());
            let mut header = header(b'0', 3);
            builder.append_data(&mut header, &path, b"abc".as_slice()).unwrap();
            let found = read_all(&builder.into_inner().unwrap()).unwrap();
            assert_eq!(found.len(), 1);
            assert_eq!(String::from_utf8_lossy(&found[0].0.path), path);
            assert_eq!(found[0].0.mode, 0o4755);
            assert_eq!(found[0].1, b"abc");
        }
    }

    #[test]
    fn pax_records_hold_for_the_next_entry_and_global_ones_for_none() {
        let of = |records: &[u8]| {
            read_all(&archive(&[
                (b'g', "g", b"19 mtime=1000000.5\n28 SCHILY.xattr.user.x=\0\n=\n\n"),
                (b'x', "x", records),
                (b'0', "short", b"abc"),
                (b'0', "b", b""),
            ]))
        };
        // The length 12 is one too large.
        assert!(of(b"15 path=long/a\n12 uid=70000\n").is_err());
        let found = of(b"15 path=long/a\n13 uid=70000\n19 mtime=2000000.5\n").unwrap();
        let time = |seconds, nanoseconds| super::super::Time { seconds, nanoseconds };
        assert_eq!(found[0].0.path, b"long/a");
        assert_eq!((found[0].0.uid, found[0].0.mtime), (70000, time(2_000_000, 500_000_000)));
        assert_eq!(found[1].0.path, b"b");
        assert_eq!((found[1].0.uid, found[1].0.mtime), (0, time(7, 0)));
        assert!(found.iter().all(|(entry, _)| entry.xattrs.is_empty()));
    }

    #[test]
    fn an_archive_cut_anywhere_is_not_whole() {
        let bytes = archive(&[(b'L', "l", b"name\0"), (b'0', "a", &[7; 600])]);
        let end = bytes.len() - 1024;
        assert_eq!(read_all(&bytes).unwrap().len(), 1);
        assert_eq!(read_all(&bytes[..end]).unwrap()[0].0.path, b"name");
        for cut in 1..end {
            assert!(read_all(&bytes[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn an_entry_without_an_exact_form_is_refused() {
        let huge = {
            let mut header = header(b'x', MAX_EXTENSION + 1);
            header.set_cksum();
            header.as_bytes().to_vec()
        };
        let zeros = [vec![0; BLOCK], archive(&[(b'0', "a", b"")])].concat();
        for (bytes, fault) in [
            (huge, "an extension header of more than 1 MiB"),
            (zeros, "a lone block of zeros inside the archive"),
            (archive(&[(b'S', "a", b"x")]), "a sparse map that does not fit its data"),
            (
                archive(&[(b'x', "x", b"22 GNU.sparse.major=2\n"), (b'0', "a", b"")]),
                "a sparse file of an unknown form",
            ),
            (archive(&[(b'V', "a", b"")]), "entry a: unknown type 'V'"),
            (archive(&[(b'x', "x", b"18 uid=4294967295\n"), (b'0', "a", b"")]), "uid 4294967295"),
            (archive(&[(b'x', "x", b"12 path=a\0b\n")]), "a malformed pax path"),
            (archive(&[(b'x', "x", b"10 path=a\n")]), "the archive ends before"),
            (archive(&[(b'L', "x", b"b\0".as_slice()); 17]), "too many extension headers"),
        ] {
            let found = read_all(&bytes).unwrap_err().to_string();
            assert!(found.starts_with(fault), "{found}");
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let good = archive(&[(b'x', "x", b"10 path=a\n"), (b'0', "a", b"abc")]);
        for at in 0..good.len() {
            for value in [0, b'9', 0xff] {
                let mut bytes = good.clone();
                bytes[at] = value;
                // Both outcomes are right.
                let _: io::Result<_> = read_all(&bytes);
            }
        }
    }
}
