//! The verification of bytes by their digest.

use std::io::{self, Read};

pub use jc_unshare::image::{Algorithm, Digest, Hasher};

/// Verifies the bytes of an inner reader. The end is an error if digest or size differ.
pub struct Verify<R> {
    inner: R,
    hasher: Option<Hasher>,
    expected: Digest,
    size: Option<u64>,
    received: u64,
    what: &'static str,
}

impl<R: Read> Verify<R> {
    /// `size` is in bytes, if it is known.
    pub fn new(inner: R, expected: Digest, size: Option<u64>) -> Self {
        let hasher = Some(Hasher::new(expected.algorithm()));
        Self { inner, hasher, expected, size, received: 0, what: "the content" }
    }

    /// Sets the name of the bytes in errors.
    #[must_use]
    pub fn named(self, what: &'static str) -> Self {
        Self { what, ..self }
    }

    fn check_end(&mut self) -> io::Result<()> {
        if let Some(size) = self.size.filter(|size| *size != self.received) {
            return Err(invalid(format!("ends after {} of {size} bytes", self.received)));
        }
        match self.hasher.take().map(Hasher::finish) {
            Some(found) if found != self.expected => {
                Err(invalid(format!("{} has digest {found}, not {}", self.what, self.expected)))
            }
            _ => Ok(()),
        }
    }
}

impl<R: Read> Read for Verify<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let n = self.inner.read(buffer)?;
        if n == 0 {
            self.check_end()?;
            return Ok(0);
        }
        self.received += n as u64;
        if let Some(size) = self.size.filter(|size| *size < self.received) {
            return Err(invalid(format!("goes on after {size} bytes")));
        }
        if let (Some(hasher), Some(bytes)) = (&mut self.hasher, buffer.get(..n)) {
            hasher.update(bytes);
        }
        Ok(n)
    }
}

/// An error about the content.
pub fn invalid(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_verified_at_its_end() {
        let want = Digest::of(b"hello");
        for (content, size, outcome) in [
            ("hello", Some(5), Ok(())),
            ("hello", None, Ok(())),
            ("hell", Some(5), Err("ends after 4 of 5 bytes")),
            ("hello!", Some(5), Err("goes on after 5 bytes")),
            ("hellO", Some(5), Err("the content has digest sha256:")),
            ("hellO", None, Err("the content has digest sha256:")),
        ] {
            let mut verify = Verify::new(content.as_bytes(), want.clone(), size);
            let found = io::copy(&mut verify, &mut io::sink());
            match outcome {
                Ok(()) => assert!(found.is_ok(), "{content} {size:?}"),
                Err(why) => assert!(found.unwrap_err().to_string().starts_with(why), "{content}"),
            }
        }
    }
}
