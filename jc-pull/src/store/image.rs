//! `images/`: one file for each name, with a line of JSON.

pub use jc_unshare::image::ImageEntry;
use jc_unshare::image::{MAX_ENTRY, Platform};
use jc_unshare::{Context, Result};

use super::Store;
use crate::sys;

impl Store {
    /// The entry in a file of `images/`. The result is `None` if the file is absent. A malformed entry is
    /// an error.
    pub fn image(&self, key: &str) -> Result<Option<ImageEntry>> {
        let path = self.path.join(super::IMAGES).join(key);
        let line = super::read(&self.images, key, MAX_ENTRY, &path)?;
        let Some(line) = line else { return Ok(None) };
        ImageEntry::parse(&line).map(Some).map_err(|e| e.context(path.display()))
    }

    /// Whether the store has all layers and documents of an image.
    pub fn is_whole(&self, image: &ImageEntry) -> Result<bool> {
        for name in &image.layers {
            if self.layer(name)?.is_none() {
                return Ok(false);
            }
        }
        Ok(image.documents().iter().all(|digest| self.blob(digest).is_some()))
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
