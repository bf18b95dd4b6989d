//! `images/`: one file for each name, with a line of JSON.

use jc_unshare::{Context, Error, Result};
use serde::{Deserialize, Serialize};

use super::Store;
use crate::digest::Digest;
use crate::platform::Platform;
use crate::sys;

/// An entry of `images/`, with all that a list needs, and the layers in use.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ImageEntry {
    #[serde(rename = "ref")]
    pub reference: String,
    /// The name of the image from which the layers came that jc-commit has not made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    pub platform: String,
    /// The digest of the name: the index's if there is one.
    pub target: Digest,
    pub manifest: Digest,
    pub config: Digest,
    /// The names of the layers in `layers/`, the lowest first.
    pub layers: Vec<String>,
}

impl ImageEntry {
    /// The name of the file: a digest, since names and platforms may have any characters.
    pub fn key(&self) -> String {
        Digest::of(format!("{} {}", self.reference, self.platform).as_bytes()).hex().to_owned()
    }

    pub fn to_line(&self) -> Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self).map_err(|e| Error::new(format_args!("{e}")))?;
        line.push(b'\n');
        Ok(line)
    }
}

impl Store {
    /// The entry in a file of `images/`. The result is `None` if the file is absent. A malformed entry is
    /// an error.
    pub fn image(&self, key: &str) -> Result<Option<ImageEntry>> {
        let path = self.path.join(super::IMAGES).join(key);
        let line = super::read(&self.images, key, super::MAX_ENTRY, &path)?;
        let Some(line) = line else { return Ok(None) };
        let entry = serde_json::from_slice(&line)
            .map_err(|e| Error::new(format_args!("{}: {e}", path.display())))?;
        Ok(Some(entry))
    }

    /// All images, sorted by name and platform. A malformed entry is an error.
    pub fn images(&self) -> Result<Vec<ImageEntry>> {
        let mut keys = Vec::new();
        let directory = sys::open_dir_to_read(&self.images, ".").op("open images")?;
        sys::for_each_name(&directory, |name| {
            keys.push(String::from_utf8_lossy(name).into_owned());
            Ok(())
        })
        .on("read", self.path.join(super::IMAGES))?;
        let mut images = Vec::new();
        for key in keys {
            images.extend(self.image(&key)?);
        }
        images.sort_by(|a, b| (&a.reference, &a.platform).cmp(&(&b.reference, &b.platform)));
        Ok(images)
    }

    /// The image of a name that is nearest to a platform, or to the host's.
    pub fn find_image(
        &self,
        name: &str,
        platform: Option<&Platform>,
    ) -> Result<Option<ImageEntry>> {
        let host = Platform::host();
        let distance = |entry: &ImageEntry| {
            Platform::parse(&entry.platform).ok()?.distance(platform.unwrap_or(&host))
        };
        let images = self.images()?.into_iter().filter(|entry| entry.reference == name);
        Ok(images
            // Without a given platform, an image for another platform is better than none.
            .map(|entry| (distance(&entry).or(platform.is_none().then_some(u32::MAX)), entry))
            .filter_map(|(distance, entry)| Some((distance?, entry)))
            .min_by_key(|(distance, _)| *distance)
            .map(|(_, entry)| entry))
    }
}
