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
    fn an_allowance_ends() {
        let mut allowance = Allowance::new(10);
        allowance.bytes(10).unwrap();
        assert_eq!(allowance.bytes(1).unwrap_err().to_string(), "unpacks to more than 10 bytes");
        allowance.entries = 1;
        allowance.entry().unwrap();
        assert_eq!(allowance.entry().unwrap_err().to_string(), "more than 4194304 entries");
    }
}
