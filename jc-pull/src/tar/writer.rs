//! Writing an archive, in the pax form: names, times, owners and attributes exactly.

use std::io::{self, Read, Write};

use super::{Entry, Kind};

/// Writes entries one after the other.
pub struct Writer<W> {
    inner: W,
}

/// What a ustar header's number field of twelve bytes can hold.
const MAX_OCTAL: u64 = 0o77_777_777_777;

impl<W: Write> Writer<W> {
    /// Nothing is written yet.
    pub fn new(inner: W) -> Self {
        Self { inner }
    }

    /// Writes an entry; `content` must have as many bytes as it says.
    pub fn entry(&mut self, entry: &Entry, content: &mut dyn Read) -> io::Result<()> {
        let link: &[u8] = match &entry.kind {
            Kind::HardLink(target) | Kind::Symlink(target) => target,
            _ => b"",
        };
        let mut records = Vec::new();
        let mut record = |key: &[u8], value: &[u8]| records.extend(pax_record(key, value));
        if entry.path.len() > 100 || !entry.path.is_ascii() {
            record(b"path", &entry.path);
        }
        if link.len() > 100 || !link.is_ascii() {
            record(b"linkpath", link);
        }
        for (key, id) in [(b"uid", entry.uid), (b"gid", entry.gid)] {
            if id > 0o7_777_777 {
                record(key, id.to_string().as_bytes());
            }
        }
        if entry.size > MAX_OCTAL {
            record(b"size", entry.size.to_string().as_bytes());
        }
        let mtime = entry.mtime;
        let plain = u64::try_from(mtime.seconds).ok().filter(|s| *s <= MAX_OCTAL);
        if mtime.nanoseconds != 0 || plain.is_none() {
            record(b"mtime", decimal(mtime).as_bytes());
        }
        for (name, value) in &entry.xattrs {
            record(&[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
        if !records.is_empty() {
            let size = records.len() as u64;
            self.header(b'x', b"pax", b"", entry, size, 0)?;
            self.content(&mut records.as_slice(), size)?;
        }
        let flag = match entry.kind {
            Kind::File => b'0',
            Kind::HardLink(_) => b'1',
            Kind::Symlink(_) => b'2',
            Kind::Char(..) => b'3',
            Kind::Block(..) => b'4',
            Kind::Directory => b'5',
            Kind::Fifo => b'6',
        };
        self.header(flag, &entry.path, link, entry, entry.size, plain.unwrap_or_default())?;
        self.content(content, entry.size)
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<()> {
        self.inner.write_all(&[0; 1024])?;
        self.inner.flush()
    }

    fn header(
        &mut self,
        flag: u8,
        path: &[u8],
        link: &[u8],
        entry: &Entry,
        size: u64,
        mtime: u64,
    ) -> io::Result<()> {
        let mut block = [0_u8; 512];
        let mut put = |at: usize, length: usize, bytes: &[u8]| {
            let bytes = bytes.get(..length.min(bytes.len())).unwrap_or_default();
            if let Some(field) = block.get_mut(at..at + bytes.len()) {
                field.copy_from_slice(bytes);
            }
        };
        let small = |id: u32| if id > 0o7_777_777 { 0 } else { id };
        let (major, minor) = match entry.kind {
            Kind::Char(major, minor) | Kind::Block(major, minor) => (major, minor),
            _ => (0, 0),
        };
        put(0, 100, path);
        put(100, 8, format!("{:07o}", entry.mode).as_bytes());
        put(108, 8, format!("{:07o}", small(entry.uid)).as_bytes());
        put(116, 8, format!("{:07o}", small(entry.gid)).as_bytes());
        put(124, 12, format!("{:011o}", if size > MAX_OCTAL { 0 } else { size }).as_bytes());
        put(136, 12, format!("{mtime:011o}").as_bytes());
        put(148, 8, b"        ");
        put(156, 1, &[flag]);
        put(157, 100, link);
        put(257, 8, b"ustar\x0000");
        put(329, 8, format!("{major:07o}").as_bytes());
        put(337, 8, format!("{minor:07o}").as_bytes());
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        if let Some(field) = block.get_mut(148..156) {
            field.copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        self.inner.write_all(&block)
    }

    fn content(&mut self, content: &mut dyn Read, size: u64) -> io::Result<()> {
        if io::copy(&mut content.take(size), &mut self.inner)? != size {
            return Err(io::Error::other("the file has become shorter"));
        }
        let padding = (512 - size % 512) % 512;
        io::copy(&mut io::repeat(0).take(padding), &mut self.inner).map(drop)
    }
}

/// `LENGTH KEY=VALUE\n`, the length being that of all of it.
fn pax_record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() > length {
        length += 1;
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// Seconds with a fraction; before the epoch both count backwards.
fn decimal(time: super::Time) -> String {
    match (time.seconds, time.nanoseconds) {
        (seconds @ ..0, 1..) => {
            let (seconds, rest) = (-(seconds + 1), 1_000_000_000 - time.nanoseconds);
            format!("-{seconds}.{rest:09}")
        }
        (seconds, nanoseconds) => format!("{seconds}.{nanoseconds:09}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Reader, Time};
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let entry = |path: &str, kind: Kind| Entry {
            path: path.as_bytes().to_vec(),
            kind,
            mode: 0o4755,
            uid: 1000,
            gid: 1000,
            size: 0,
            mtime: Time { seconds: 5, nanoseconds: 0 },
            xattrs: Vec::new(),
        };
        let long = "x/".repeat(150) + "é";
        let mut entries = vec![
            entry("dir/", Kind::Directory),
            entry("dir/file", Kind::File),
            entry(&long, Kind::HardLink(long.clone().into_bytes())),
            entry("sym", Kind::Symlink(b"../to\n".to_vec())),
            entry("char", Kind::Char(5, 300)),
            entry("block", Kind::Block(8, 1)),
            entry("pipe", Kind::Fifo),
        ];
        entries[1].size = 700;
        entries[1].uid = 4_000_000_000;
        entries[1].mtime = Time { seconds: -2, nanoseconds: 750_000_000 };
        entries[1].xattrs = vec![(b"user.x".to_vec(), b"\0=\n".to_vec())];
        for length in 80..100 {
            entries[2].xattrs.push((format!("user.{length}").into_bytes(), vec![b'v'; length]));
        }
        entries[3].mtime = Time { seconds: 1, nanoseconds: 1 };
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        for entry in &entries {
            writer.entry(entry, &mut io::repeat(7)).unwrap();
        }
        writer.finish().unwrap();
        let mut reader = Reader::new(bytes.as_slice());
        for entry in &entries {
            assert_eq!(reader.entry().unwrap().as_ref(), Some(entry));
        }
        assert_eq!(reader.entry().unwrap(), None);
        let mut writer = Writer::new(io::sink());
        assert!(writer.entry(&entries[1], &mut io::empty()).is_err());
    }
}
