//! The documents of images, without their layers.

use std::collections::BTreeMap;

use jc_unshare::Result;
use jc_unshare::record::Record;

use crate::digest::Digest;
use crate::pull::Image;
use crate::record_line::record;
use crate::store::Store;

/// Brings the documents of images into the store. Returns the records of the images, without layers.
pub fn pull_documents(store: &Store, images: &[Image], no_sync: bool) -> Result<Vec<Record>> {
    let new: BTreeMap<&Digest, &Vec<u8>> =
        images.iter().flat_map(|image| image.resolved.missing_documents(store)).collect();
    if !new.is_empty() {
        let work = store.work()?;
        new.iter().try_for_each(|(digest, bytes)| work.add_blob(digest, bytes))?;
        let digests: Vec<Digest> = new.into_keys().cloned().collect();
        work.publish_documents(&digests, no_sync)?;
    }
    let without_layers = |image: &Image| {
        let entry = image.resolved.entry(store, Vec::new());
        record(store, &image.resolved.config, &entry)
    };
    images.iter().map(without_layers).collect()
}
