//! `images/`: what names stand for, a line of JSON each.

use jc_unshare::{Context, Error, Result};
use serde::{Deserialize, Serialize};

use super::Store;
use crate::digest::Digest;
use crate::platform::Platform;
use crate::sys;

/// What `images/` says of one image: enough to list it and to know which layers are in use.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ImageEntry {
    /// The full name.
    #[serde(rename = "ref")]
    pub reference: String,
    /// `os/arch[/variant]`.
    pub platform: String,
    /// The digest that the name stands for, an index's where there is one.
    pub target: Digest,
    /// The digest of the manifest.
    pub manifest: Digest,
    /// The digest of the configuration.
    pub config: Digest,
    /// The names of the layers in `layers/`, lowest first.
    pub layers: Vec<String>,
}

impl ImageEntry {
    /// The file's name: a name and a platform, whatever characters they have, make one.
    pub fn key(&self) -> String {
        Digest::of(format!("{} {}", self.reference, self.platform).as_bytes()).hex().to_owned()
    }

    /// The file's content.
    pub fn to_line(&self) -> Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self).map_err(|e| Error::new(format_args!("{e}")))?;
        line.push(b'\n');
        Ok(line)
    }
}

impl Store {
    /// The entry in that file, if it is there.
    pub fn image(&self, key: &str) -> Result<Option<ImageEntry>> {
        let path = self.path.join(super::IMAGES).join(key);
        let line = super::read(&self.images, key.as_bytes(), super::MAX_ENTRY).on("read", &path)?;
        let Some(line) = line else { return Ok(None) };
        let entry = serde_json::from_slice(&line)
            .map_err(|e| Error::new(format_args!("{}: {e}", path.display())))?;
        Ok(Some(entry))
    }

    /// All images, by name and platform.
    pub fn images(&self) -> Result<Vec<ImageEntry>> {
        let mut keys = Vec::new();
        let directory = sys::open_dir(&self.images, b".").op("open images")?;
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

    /// The image of that full name which suits `wanted`, or the host, best.
    pub fn find_image(&self, name: &str, wanted: Option<&Platform>) -> Result<Option<ImageEntry>> {
        let host = Platform::host();
        let distance = |entry: &ImageEntry| {
            Platform::parse(&entry.platform).ok()?.distance(wanted.unwrap_or(&host))
        };
        let images = self.images()?.into_iter().filter(|entry| entry.reference == name);
        Ok(images
            // What stands alone is taken as it is, unless a platform is asked for.
            .map(|entry| (distance(&entry).or(wanted.is_none().then_some(u32::MAX)), entry))
            .filter_map(|(distance, entry)| Some((distance?, entry)))
            .min_by_key(|(distance, _)| *distance)
            .map(|(_, entry)| entry))
    }
}
