//! Content digests, `algorithm:hex` (OCI image-spec descriptor.md).

use std::fmt::{self, Display};
use std::io::{self, Read};

use jc_unshare::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512};

#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Algorithm {
    Sha256,
    Sha512,
}

impl Algorithm {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    const fn hex_length(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// A digest whose parts are safe in a path and in a URL.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest {
    algorithm: Algorithm,
    hex: String,
}

impl Digest {
    /// Parses `algorithm:hex`. An unknown algorithm, another length and upper-case digits are errors.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |why: &str| Error::new(format_args!("digest {text:?}: {why}"));
        let (name, hex) = text.split_once(':').ok_or_else(|| bad("no colon"))?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(bad("unknown algorithm")),
        };
        if hex.len() != algorithm.hex_length() {
            return Err(bad("wrong length"));
        }
        if !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(bad("not lower-case hexadecimal"));
        }
        Ok(Self { algorithm, hex: hex.to_owned() })
    }

    pub fn of(bytes: &[u8]) -> Self {
        Self::of_with(Algorithm::Sha256, bytes)
    }

    pub fn of_with(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// The digest as a file name. A colon would end a path in the `lowerdir` option of overlayfs.
    pub fn file_name(&self) -> String {
        format!("{}-{}", self.algorithm.name(), self.hex)
    }

    /// The first digits, for people.
    pub fn short(&self) -> &str {
        self.hex.get(..12).unwrap_or(&self.hex)
    }

    /// An error if the bytes have another digest.
    pub fn check(&self, bytes: &[u8]) -> Result<()> {
        let found = Self::of_with(self.algorithm, bytes);
        if found == *self {
            Ok(())
        } else {
            Err(Error::new(format_args!("{self}: the content has digest {found}")))
        }
    }
}

impl Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// A digest of bytes that come in pieces.
pub enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(h) => h.update(bytes),
            Self::Sha512(h) => h.update(bytes),
        }
    }

    pub fn finish(self) -> Digest {
        match self {
            Self::Sha256(h) => {
                Digest { algorithm: Algorithm::Sha256, hex: to_hex(h.finalize().as_slice()) }
            }
            Self::Sha512(h) => {
                Digest { algorithm: Algorithm::Sha512, hex: to_hex(h.finalize().as_slice()) }
            }
        }
    }
}

fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    bytes.iter().flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]]).collect()
}

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

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn only_what_is_safe_in_a_path_is_a_digest() {
        assert_eq!(Digest::parse(EMPTY).unwrap().to_string(), EMPTY);
        let long = format!("sha512:{}", "0".repeat(128));
        assert_eq!(Digest::parse(&long).unwrap().to_string(), long);
        for (text, why) in [
            ("", "no colon"),
            ("sha256", "no colon"),
            ("md5:00", "unknown algorithm"),
            ("sha256:00", "wrong length"),
            (&EMPTY.replace("e3b0", "E3B0"), "not lower-case hexadecimal"),
            (&EMPTY.replace("e3b0c4", "../../"), "not lower-case hexadecimal"),
            (&format!("{EMPTY}0"), "wrong length"),
        ] {
            let error = Digest::parse(text).unwrap_err().to_string();
            assert!(error.ends_with(why), "{text}: {error}");
        }
    }

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
