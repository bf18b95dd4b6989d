//! The bytes of a blob on their way: their digest and their size.

use std::io::{self, Read, Write};
use std::path::Path;

use jc_unshare::{Context, Error, Result, strerror};

use super::{Outgoing, Written};
use crate::digest::{Algorithm, Digest, Hasher};

/// The bytes of one read.
const PIECE: usize = 256 << 10;

/// The sum of the bytes of a blob.
pub struct Sum {
    hasher: Hasher,
    size: u64,
}

impl Sum {
    /// A sum by the algorithm of the expected digest.
    pub fn of(blob: &Outgoing<'_>) -> Self {
        let algorithm = blob.digest.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
        Self { hasher: Hasher::new(algorithm), size: 0 }
    }

    pub fn add(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
    }

    /// The digest and size. Others than the expected ones are an error.
    pub fn finish(self, blob: &Outgoing<'_>) -> Result<Written> {
        let (digest, size) = (self.hasher.finish(), self.size);
        let name = blob.digest.as_ref().unwrap_or(&digest);
        if let Some(expected) = blob.size.filter(|expected| *expected != size) {
            return Err(Error::new(format_args!("blob {name}: {size} bytes, not {expected}")));
        }
        if digest != *name {
            return Err(Error::new(format_args!("blob {name}: the content has digest {digest}")));
        }
        Ok(Written { digest, size })
    }
}

/// Copies all bytes of a blob to a file, and sums them up.
pub fn copy(blob: &Outgoing<'_>, to: &mut impl Write, path: &Path) -> Result<Written> {
    let mut reader = (blob.open)()?;
    let (mut sum, mut buffer) = (Sum::of(blob), vec![0; PIECE]);
    loop {
        let n = fill(&mut reader, &mut buffer).map_err(|e| unread(&e))?;
        let bytes = buffer.get(..n).unwrap_or_default();
        sum.add(bytes);
        to.write_all(bytes).on("write", path)?;
        if n < buffer.len() {
            return sum.finish(blob);
        }
    }
}

/// The error of reading a blob.
pub fn unread(e: &io::Error) -> Error {
    Error::new(strerror(e))
}

/// Fills a buffer as far as the reader has bytes.
pub fn fill(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}
