//! The record of a pulled image (jc-record(5)).

use std::collections::BTreeSet;
use std::path::PathBuf;

use jc_unshare::Result;
use jc_unshare::record::{self, Record};

use crate::manifest::Config;
use crate::store::{ImageEntry, Store};
use crate::sys;

/// The record of an image. Only layers in the store are listed. Errors are those of opening the layers.
pub fn record(store: &Store, config: &Config, entry: &ImageEntry) -> Result<Record> {
    Ok(Record {
        jc: record::VERSION,
        reference: Some(entry.reference.clone()),
        origin: entry.origin.clone(),
        digest: Some(entry.manifest.to_string()),
        platform: Some(entry.platform.clone()),
        layers: Some(visible(store, &entry.layers)?).filter(|layers| !layers.is_empty()),
        rootfs: None,
        config: config.config.clone(),
    })
}

/// The directories of the layers that an overlay shows. overlayfs takes no directory twice: of a layer that
/// an image has twice, the upper one sets everything again. An opaque root hides the layers below it.
fn visible(store: &Store, names: &[String]) -> Result<Vec<PathBuf>> {
    let mut known = BTreeSet::new();
    let mut paths = Vec::new();
    for name in names.iter().rev() {
        if known.insert(name) {
            paths.push(store.layer_path(name));
        }
        if store.layer(name)?.is_some_and(sys::is_opaque) {
            break;
        }
    }
    paths.reverse();
    Ok(paths)
}
