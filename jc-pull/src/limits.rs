//! Limits of one layer. A few bytes of a hostile layer can unpack to more than a disk.

use jc_unshare::{Error, Result};

/// The default of `--max-size`, several times the largest layer in use.
pub const DEFAULT_SIZE: &str = "32G";

/// The most entries of a layer, several times the most in use.
pub const MAX_ENTRIES: u64 = 4 << 20;

/// The bytes of symbolic links that names may lead through, for each entry. A name in an archive has the
/// cost of its length, but a short name can lead through long links again and again.
const LINKS_PER_ENTRY: u64 = 1 << 10;
/// The same for a layer of few entries.
const LINKS: u64 = 1 << 20;

/// The headers and padding of small layers, in bytes.
const SLACK: u64 = 256 << 10;

/// The part of the limits of one layer that is left.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    size: u64,
    bytes: u64,
    entries: u64,
    links: u64,
}

impl Allowance {
    pub const fn new(size: u64) -> Self {
        Self { size, bytes: size, entries: MAX_ENTRIES, links: LINKS }
    }

    /// The limit of the archive itself: twice the size, for headers and padding.
    pub const fn of_archive(self) -> Self {
        Self { bytes: self.size.saturating_mul(2).saturating_add(SLACK), ..self }
    }

    #[cfg(test)]
    pub const fn of_entries(self, entries: u64) -> Self {
        Self { entries, ..self }
    }

    /// Subtracts the bytes of a piece of content, or of a hole. An error if fewer bytes are left.
    pub fn bytes(&mut self, bytes: u64) -> Result<()> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or_else(|| {
            Error::new(format_args!("unpacks to more than {} bytes", self.size))
                .hint("if you trust the image, --max-size allows more")
        })?;
        Ok(())
    }

    /// Subtracts an entry, or a directory that an entry implies. An error if no entry is left.
    pub fn entry(&mut self) -> Result<()> {
        let more = || Error::new(format_args!("more than {MAX_ENTRIES} entries"));
        self.entries = self.entries.checked_sub(1).ok_or_else(more)?;
        self.links = self.links.saturating_add(LINKS_PER_ENTRY);
        Ok(())
    }

    /// Subtracts the text of a symbolic link that a name leads through. An error if fewer bytes are left.
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
