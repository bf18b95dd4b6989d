//! `images/` of the store (jc-store(5)): one file for each name, with a line of JSON.

use serde::{Deserialize, Serialize};

use super::Digest;
use crate::error::{Error, Result};

/// The longest file, in bytes.
pub const MAX_ENTRY: u64 = 4 << 20;

/// An entry of `images/`, with all that a list needs, and the layers in use.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ImageEntry {
    /// The full name of the image.
    #[serde(rename = "ref")]
    pub reference: String,
    /// The name of the image from which the layers came that jc-commit has not made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// The platform in the form `os/arch[/variant]`.
    pub platform: String,
    /// The digest of the name: the index's if there is one.
    pub target: Digest,
    /// The digest of the manifest.
    pub manifest: Digest,
    /// The digest of the configuration.
    pub config: Digest,
    /// The names of the layers in `layers/`, the lowest first.
    pub layers: Vec<String>,
}

impl ImageEntry {
    /// The digests of the documents in `blobs/` that the image needs.
    pub const fn documents(&self) -> [&Digest; 3] {
        [&self.target, &self.manifest, &self.config]
    }

    /// The name of the file: a digest, since names and platforms may have any characters.
    pub fn key(&self) -> String {
        Self::key_of(&self.reference, &self.platform)
    }

    /// The name of the file of an image.
    pub fn key_of(reference: &str, platform: &str) -> String {
        Digest::of(format!("{reference} {platform}").as_bytes()).hex().to_owned()
    }

    /// Parses the content of the file.
    pub fn parse(line: &[u8]) -> Result<Self> {
        serde_json::from_slice(line).map_err(Error::new)
    }

    /// The content of the file.
    pub fn to_line(&self) -> Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self).map_err(Error::new)?;
        line.push(b'\n');
        Ok(line)
    }
}
