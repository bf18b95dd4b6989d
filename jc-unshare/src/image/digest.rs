//! Content digests, `algorithm:hex` (OCI image-spec descriptor.md).

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512};

use crate::error::{Error, Result};

/// A registered algorithm (OCI image-spec descriptor.md).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Algorithm {
    /// FIPS 180-4, 256 bits.
    Sha256,
    /// FIPS 180-4, 512 bits.
    Sha512,
}

impl Algorithm {
    /// The name in a digest.
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

    /// The SHA-256 of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::of_with(Algorithm::Sha256, bytes)
    }

    /// The digest of bytes by an algorithm.
    pub fn of_with(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The algorithm that has made the digest.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hexadecimal digits behind the colon.
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
    /// SHA-256.
    Sha256(Sha256),
    /// SHA-512.
    Sha512(Sha512),
}

impl Hasher {
    /// A digest of no bytes yet.
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    /// Adds bytes behind those so far.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(h) => h.update(bytes),
            Self::Sha512(h) => h.update(bytes),
        }
    }

    /// The digest of all bytes.
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
}
