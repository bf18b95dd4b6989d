//! How much a layer may unpack to: a few bytes of a hostile one can stand for all of a disk.

use jc_unshare::{Error, Result};

/// What a layer may unpack to if nothing says otherwise, in bytes; several times the largest that
/// are in use.
pub const DEFAULT_SIZE: &str = "32G";

/// As many entries a layer may have; several times the most that are in use.
pub const MAX_ENTRIES: u64 = 4 << 20;

/// A layer's symbolic links may lead through texts of as many bytes for each entry. A name in an archive
/// has the cost of its length, but a short one can lead through long links again and again.
const LINKS_PER_ENTRY: u64 = 1 << 10;
/// As much again for a layer of few entries.
const LINKS: u64 = 1 << 20;

/// Of however little an archive, what is not worth an error, in bytes.
const SLACK: u64 = 256 << 10;

/// Reads a size in bytes, with `K`, `M`, `G` or `T` for powers of 1024 behind it.
pub fn parse_size(text: &str) -> Result<u64> {
    let bad = || Error::usage(format_args!("size {text:?}: not a number with K, M, G or T"));
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (text.get(..text.len() - 1), 10),
        Some(b'M' | b'm') => (text.get(..text.len() - 1), 20),
        Some(b'G' | b'g') => (text.get(..text.len() - 1), 30),
        Some(b'T' | b't') => (text.get(..text.len() - 1), 40),
        _ => (Some(text), 0),
    };
    let digits = digits.filter(|d| d.bytes().all(|b| b.is_ascii_digit())).ok_or_else(bad)?;
    let number: u64 = digits.parse().map_err(|_| bad())?;
    number.checked_mul(1 << shift).ok_or_else(bad)
}

/// What is left of a layer's allowance.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    size: u64,
    bytes: u64,
    entries: u64,
    links: u64,
}

impl Allowance {
    /// `size` bytes, and [`MAX_ENTRIES`].
    pub const fn new(size: u64) -> Self {
        Self { size, bytes: size, entries: MAX_ENTRIES, links: LINKS }
    }

    /// What the archive itself may have: twice as much, for headers and padding.
    pub const fn of_archive(self) -> Self {
        Self { bytes: self.size.saturating_mul(2).saturating_add(SLACK), ..self }
    }

    /// With another number of entries.
    #[cfg(test)]
    pub const fn of_entries(self, entries: u64) -> Self {
        Self { entries, ..self }
    }

    /// Takes the bytes of one more piece of content, or of a hole.
    pub fn bytes(&mut self, bytes: u64) -> Result<()> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or_else(|| {
            Error::new(format_args!("unpacks to more than {} bytes", self.size))
                .hint("if you trust the image, --max-size allows more")
        })?;
        Ok(())
    }

    /// Takes one more entry, or a directory that an entry implies.
    pub fn entry(&mut self) -> Result<()> {
        let more = || Error::new(format_args!("more than {MAX_ENTRIES} entries"));
        self.entries = self.entries.checked_sub(1).ok_or_else(more)?;
        self.links = self.links.saturating_add(LINKS_PER_ENTRY);
        Ok(())
    }

    /// Takes the text of a symbolic link that a name leads through.
    pub fn link(&mut self, bytes: usize) -> Result<()> {
        let more = || Error::new("names that lead through too many symbolic links");
        self.links = self.links.checked_sub(bytes as u64).ok_or_else(more)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_usual_suffixes() {
        for (text, size) in [
            ("0", Some(0)),
            ("1024", Some(1024)),
            ("1K", Some(1024)),
            ("2m", Some(2 << 20)),
            (DEFAULT_SIZE, Some(32 << 30)),
            ("3T", Some(3 << 40)),
            ("", None),
            ("G", None),
            ("-1", None),
            ("+1", None),
            ("1.5G", None),
            ("1GB", None),
            ("99999999999T", None),
            ("é", None),
        ] {
            assert_eq!(parse_size(text).ok(), size, "{text}");
        }
    }

    #[test]
    fn an_allowance_ends() {
        let mut allowance = Allowance::new(10);
        allowance.bytes(10).unwrap();
        assert_eq!(allowance.bytes(1).unwrap_err().to_string(), "unpacks to more than 10 bytes");
        allowance.entries = 1;
        allowance.entry().unwrap();
        assert_eq!(allowance.entry().unwrap_err().to_string(), "more than 4194304 entries");
    }
}
