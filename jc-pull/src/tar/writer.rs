//! Archives in the pax form (POSIX.1-2001), with exact names, times, owners and attributes.

use std::io::{self, Read, Write};
use std::mem::ManuallyDrop;

use tar::{Builder, EntryType, Header};

use super::{Entry, EntryKind, Time};

/// Writes one entry after the other. An archive that is not finished has no end: the builder would write
/// one when it is dropped, and a failed archive would look complete.
pub struct Writer<W: Write>(ManuallyDrop<Builder<W>>);

/// The largest number in a header field of twelve bytes, and in one of eight.
const MAX_OCTAL: u64 = 0o77_777_777_777;
const MAX_ID: u32 = 0o7_777_777;
/// The longest name in a header, in bytes.
const MAX_NAME: usize = 100;

impl<W: Write> Writer<W> {
    pub fn new(inner: W) -> Self {
        Self(ManuallyDrop::new(Builder::new(inner)))
    }

    /// Writes an entry with `entry.size` bytes of `content`. Content with fewer bytes is an error.
    pub fn entry(&mut self, entry: &Entry, content: &mut dyn Read) -> io::Result<()> {
        let records = records(entry);
        if !records.is_empty() {
            // Not by `append_pax_extensions`: its header has no name, which is an end for busybox.
            let mut header = Header::new_ustar();
            header.set_path("pax")?;
            header.set_entry_type(EntryType::XHeader);
            header.set_size(records.len() as u64);
            header.set_cksum();
            self.0.append(&header, records.as_slice())?;
        }
        let mut content = content.take(entry.size);
        self.0.append(&header(entry)?, &mut content)?;
        match content.limit() {
            0 => Ok(()),
            _ => Err(io::Error::other("the file has become shorter")),
        }
    }

    /// Writes the end of the archive.
    pub fn finish(self) -> io::Result<()> {
        ManuallyDrop::into_inner(self.0).into_inner()?.flush()
    }
}

/// The pax records with the values that do not fit a header.
fn records(entry: &Entry) -> Vec<u8> {
    let mut records = Vec::new();
    let mut add = |key: &[u8], value: &[u8]| records.extend(record(key, value));
    for (key, name) in [("path", entry.path.as_slice()), ("linkpath", link(entry))] {
        if name.len() > MAX_NAME || !name.is_ascii() {
            add(key.as_bytes(), name);
        }
    }
    for (key, id) in [("uid", entry.uid), ("gid", entry.gid)] {
        if id > MAX_ID {
            add(key.as_bytes(), id.to_string().as_bytes());
        }
    }
    if entry.size > MAX_OCTAL {
        add(b"size", entry.size.to_string().as_bytes());
    }
    if entry.mtime.nanoseconds != 0 || octal(entry.mtime).is_none() {
        add(b"mtime", decimal(entry.mtime).as_bytes());
    }
    for (name, value) in &entry.xattrs {
        add(&[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    records
}

/// `LENGTH KEY=VALUE\n`. The length includes its own digits.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() > length {
        length += 1;
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

#[allow(clippy::useless_conversion, reason = "the type of a mode differs between platforms")]
fn header(entry: &Entry) -> io::Result<Header> {
    let (kind, (major, minor)) = match entry.kind {
        EntryKind::File => (EntryType::Regular, (0, 0)),
        EntryKind::HardLink(_) => (EntryType::Link, (0, 0)),
        EntryKind::Symlink(_) => (EntryType::Symlink, (0, 0)),
        EntryKind::Char(major, minor) => (EntryType::Char, (major, minor)),
        EntryKind::Block(major, minor) => (EntryType::Block, (major, minor)),
        EntryKind::Directory => (EntryType::Directory, (0, 0)),
        EntryKind::Fifo => (EntryType::Fifo, (0, 0)),
    };
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(entry.mode.into());
    // A larger number is in a record. The crate would write it in a form of GNU tar.
    header.set_uid(if entry.uid > MAX_ID { 0 } else { entry.uid.into() });
    header.set_gid(if entry.gid > MAX_ID { 0 } else { entry.gid.into() });
    header.set_size(if entry.size > MAX_OCTAL { 0 } else { entry.size });
    header.set_mtime(octal(entry.mtime).unwrap_or_default());
    header.set_device_major(major)?;
    header.set_device_minor(minor)?;
    if let Some(ustar) = header.as_ustar_mut() {
        // A longer name is in a record. `Header::set_path` would refuse names such as `./`.
        for (field, name) in
            [(&mut ustar.name, entry.path.as_slice()), (&mut ustar.linkname, link(entry))]
        {
            field.iter_mut().zip(name).for_each(|(to, from)| *to = *from);
        }
    }
    header.set_cksum();
    Ok(header)
}

fn link(entry: &Entry) -> &[u8] {
    match &entry.kind {
        EntryKind::HardLink(target) | EntryKind::Symlink(target) => target,
        _ => b"",
    }
}

/// The seconds, if a header can hold them.
fn octal(time: Time) -> Option<u64> {
    u64::try_from(time.seconds).ok().filter(|seconds| *seconds <= MAX_OCTAL)
}

/// Seconds with a fraction. Before the epoch, both count backwards.
fn decimal(time: Time) -> String {
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
    fn a_written_archive_is_read_back() {
        let entry = |path: &str, kind: EntryKind| Entry {
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
            entry("dir/", EntryKind::Directory),
            entry("dir/file", EntryKind::File),
            entry(&long, EntryKind::HardLink(long.clone().into_bytes())),
            entry("sym", EntryKind::Symlink(b"../to\n".to_vec())),
            entry("char", EntryKind::Char(5, 300)),
            entry("block", EntryKind::Block(8, 1)),
            entry("pipe", EntryKind::Fifo),
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

    #[test]
    fn a_header_of_records_has_a_name_since_an_empty_one_ends_an_archive_for_busybox() {
        let entry = Entry {
            path: b"a".to_vec(),
            kind: EntryKind::File,
            mode: 0o644,
            uid: 4_000_000_000,
            gid: 0,
            size: 0,
            mtime: Time::default(),
            xattrs: Vec::new(),
        };
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        writer.entry(&entry, &mut io::empty()).unwrap();
        writer.finish().unwrap();
        assert!(bytes.starts_with(b"pax\0"));
        assert_eq!(&bytes[1024 + 108..1024 + 116], b"0000000\0");
    }
}
