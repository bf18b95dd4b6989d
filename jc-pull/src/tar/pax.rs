//! pax extended headers: records `LENGTH KEY=VALUE\n` (POSIX.1-2001 pax, "Extended Header").

use std::collections::BTreeMap;
use std::io;

use super::number::decimal;
use super::sparse::{self, Piece};
use super::{Time, acl};
use crate::digest::invalid;

/// The records for the next entry.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Pax {
    pub path: Option<Vec<u8>>,
    pub link_path: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<Time>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub sparse: Sparse,
}

/// The records with the prefix `GNU.sparse.`, for files with holes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Sparse {
    /// The size of the file with its holes, in bytes.
    pub size: Option<u64>,
    pub name: Option<Vec<u8>>,
    /// The map in the records (versions 0.0 and 0.1).
    pub map: Option<Vec<Piece>>,
    /// The version of a map in front of the data.
    pub major: Option<u64>,
    pub minor: Option<u64>,
}

impl Pax {
    /// Adds records. The last of two records with one key counts. A malformed record is an error.
    pub fn read(&mut self, mut text: &[u8]) -> io::Result<()> {
        while !text.is_empty() {
            let (key, value, rest) =
                record(text).ok_or_else(|| invalid("a malformed pax record"))?;
            let key_text = || String::from_utf8_lossy(key).into_owned();
            self.set(key, value)
                .ok_or_else(|| invalid(format!("a malformed pax {}", key_text())))?;
            text = rest;
        }
        Ok(())
    }

    /// The result is `None` if the value is malformed.
    fn set(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            // An empty value cancels an earlier one.
            b"path" => self.path = bytes(value)?,
            b"linkpath" => self.link_path = bytes(value)?,
            b"size" => self.size = optional(value, decimal)?,
            b"uid" => self.uid = optional(value, decimal)?,
            b"gid" => self.gid = optional(value, decimal)?,
            b"mtime" => self.mtime = optional(value, time)?,
            b"SCHILY.acl.access" => self.set_acl(acl::ACCESS, value)?,
            b"SCHILY.acl.default" => self.set_acl(acl::DEFAULT, value)?,
            _ => {
                if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    return self.sparse.set(key, value);
                }
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.insert(name.to_vec(), value.to_vec());
                }
                // Layers do not keep the other keys (atime, ctime, uname, comment).
            }
        }
        Some(())
    }

    fn set_acl(&mut self, name: &[u8], text: &[u8]) -> Option<()> {
        let value = acl::encode(text)?;
        if !value.is_empty() {
            self.xattrs.insert(name.to_vec(), value);
        }
        Some(())
    }
}

impl Sparse {
    fn set(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"size" | b"realsize" => self.size = Some(decimal(value)?),
            b"name" => self.name = bytes(value)?,
            b"major" => self.major = Some(decimal(value)?),
            b"minor" => self.minor = Some(decimal(value)?),
            b"map" if value.is_empty() => self.map = Some(Vec::new()),
            b"map" => self.map = Some(sparse::read_pairs(value, b',')?),
            // In version 0.0 these keys alternate, and all of them count.
            b"offset" => {
                let piece = Piece { offset: decimal(value)?, length: 0 };
                sparse::push(self.map.get_or_insert_default(), piece).ok()?;
            }
            b"numbytes" => self.map.as_mut()?.last_mut()?.length = decimal(value)?,
            b"numblocks" => self.map = Some(self.map.take().unwrap_or_default()),
            _ => return None,
        }
        Some(())
    }
}

/// The key and value of the first record, and the text after it.
fn record(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = text.iter().take(20).position(|b| *b == b' ')?;
    let length = usize::try_from(decimal(text.get(..space)?)?).ok()?;
    let (line, rest) = text.split_at_checked(length)?;
    let line = line.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = line.iter().position(|b| *b == b'=')?;
    let key = line.get(..equals).filter(|key| !key.is_empty())?;
    Some((key, line.get(equals + 1..)?, rest))
}

fn bytes(value: &[u8]) -> Option<Option<Vec<u8>>> {
    if value.contains(&0) { None } else { Some(Some(value.to_vec()).filter(|v| !v.is_empty())) }
}

fn optional<T>(value: &[u8], read: fn(&[u8]) -> Option<T>) -> Option<Option<T>> {
    if value.is_empty() { Some(None) } else { read(value).map(Some) }
}

/// `[-]SECONDS[.FRACTION]`. Digits after nanoseconds are dropped.
fn time(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |b| *b == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |i: usize| fraction.get(i).map_or(0, |b| u32::from(b - b'0'));
    let nanoseconds = (0..9).fold(0, |n, i| n * 10 + digit(i));
    Some(match (negative, nanoseconds) {
        (false, _) => Time { seconds, nanoseconds },
        (true, 0) => Time { seconds: -seconds, nanoseconds },
        (true, _) => Time { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> io::Result<Pax> {
        let mut pax = Pax::default();
        pax.read(text).map(|()| pax)
    }

    #[test]
    fn values_may_hold_anything_and_the_last_one_counts() {
        let pax = read(b"10 path=a\n12 path=b\nc\n11 size=10\n").unwrap();
        assert_eq!(pax.path.as_deref(), Some(b"b\nc".as_slice()));
        assert_eq!(pax.size, Some(10));
        let pax = read(b"28 SCHILY.xattr.user.x=\0\n=\n\n14 comment=hi\n").unwrap();
        assert_eq!(pax.xattrs, BTreeMap::from([(b"user.x".to_vec(), b"\0\n=\n".to_vec())]));
        assert_eq!(read(b"10 path=a\n8 path=\n").unwrap().path, None);
        assert_eq!(
            read(b"10 path=a\n9 path=\n\n").unwrap().path.as_deref(),
            Some(b"\n".as_slice())
        );
    }

    #[test]
    fn malformed_records_are_refused() {
        for text in [
            b"path=a\n".as_slice(),
            b"8 path=a\n",
            b"11 path=a\n",
            b"99999999999999999999999999 path=a\n",
            b"0 \n",
            b"5 =a\n",
            b"11 size=1x\n",
            b"12 size=-10\n",
            b"12 path=a\0b\n",
            b"13 mtime=1.x\n",
        ] {
            assert!(read(text).is_err(), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn times_have_nanoseconds_on_both_sides_of_the_epoch() {
        for (text, seconds, nanoseconds) in [
            ("1", 1, 0),
            ("1.5", 1, 500_000_000),
            ("1.0000000019", 1, 1),
            ("-1", -1, 0),
            ("-1.25", -2, 750_000_000),
            ("0.", 0, 0),
        ] {
            assert_eq!(time(text.as_bytes()), Some(Time { seconds, nanoseconds }), "{text}");
        }
    }
}
