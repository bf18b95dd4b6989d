//! Header blocks: `struct posix_header` of tar(5), with the extensions of GNU tar.

use std::io;

use super::number::{number, until_nul};
use crate::digest::invalid;

/// The size of a block, in bytes.
pub const BLOCK: usize = 512;

/// A field with a number: its offset, its length and its name.
#[derive(Clone, Copy)]
pub struct Field(usize, usize, &'static str);

pub const MODE: Field = Field(100, 8, "mode");
pub const UID: Field = Field(108, 8, "uid");
pub const GID: Field = Field(116, 8, "gid");
/// The bytes of content that follow.
pub const SIZE: Field = Field(124, 12, "size");
pub const MTIME: Field = Field(136, 12, "mtime");

/// A header block with a valid checksum.
pub struct Header<'a>(&'a [u8; BLOCK]);

impl<'a> Header<'a> {
    /// The result is `None` for a block of zeros, which ends an archive.
    pub fn parse(block: &'a [u8; BLOCK]) -> io::Result<Option<Self>> {
        if block.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let header = Self(block);
        let stored = number(header.field(148, 8)).ok_or_else(|| invalid("header checksum"))?;
        let sum = |signed: bool| -> i64 {
            let byte = |b: u8| if signed { i64::from(b.cast_signed()) } else { i64::from(b) };
            let in_sum = |at: usize, b: u8| if (148..156).contains(&at) { 32 } else { byte(b) };
            block.iter().enumerate().map(|(at, b)| in_sum(at, *b)).sum()
        };
        // Some old archives have sums of signed characters.
        if sum(false) != stored && sum(true) != stored {
            return Err(invalid("a tar header's checksum does not fit"));
        }
        Ok(Some(header))
    }

    fn field(&self, at: usize, length: usize) -> &'a [u8] {
        self.0.get(at..at + length).unwrap_or_default()
    }

    /// The number in a field. A malformed number is an error.
    pub fn number(&self, field: Field) -> io::Result<i64> {
        let Field(at, length, name) = field;
        number(self.field(at, length)).ok_or_else(|| invalid(format!("a tar header's {name}")))
    }

    /// The name with the prefix of ustar.
    pub fn path(&self) -> Vec<u8> {
        let (name, prefix) = (until_nul(self.field(0, 100)), until_nul(self.field(345, 155)));
        if self.field(257, 6) == b"ustar\0" && !prefix.is_empty() {
            [prefix, b"/", name].concat()
        } else {
            name.to_vec()
        }
    }

    pub fn typeflag(&self) -> u8 {
        self.0[156]
    }

    pub fn link_name(&self) -> Vec<u8> {
        until_nul(self.field(157, 100)).to_vec()
    }

    /// The old sparse map of GNU tar: its first four pieces, whether blocks with more pieces follow, and
    /// the size of the file with its holes.
    pub fn sparse(&self) -> io::Result<(&'a [u8], bool, i64)> {
        Ok((self.field(386, 96), self.0[482] != 0, self.number(Field(483, 12, "size"))?))
    }

    /// The major and the minor number of a device.
    pub fn device(&self) -> io::Result<(i64, i64)> {
        Ok((self.number(Field(329, 8, "device"))?, self.number(Field(337, 8, "device"))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_that_does_not_fit_is_refused() {
        let mut header = tar::Header::new_gnu();
        header.set_size(3);
        header.set_cksum();
        let mut block = *header.as_bytes();
        assert_eq!(Header::parse(&block).unwrap().unwrap().number(SIZE).unwrap(), 3);
        block[0] = b'x';
        assert!(Header::parse(&block).is_err());
        assert!(Header::parse(&[0; BLOCK]).unwrap().is_none());
    }
}
