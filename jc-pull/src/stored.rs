//! Images of records, as the store has them.

use std::os::fd::OwnedFd;

use jc_unshare::record::Record;
use jc_unshare::{Context, Error, Result};
use serde_json::{Map, Value};

use crate::digest::Digest;
use crate::layer_names::LayerNames;
use crate::manifest::{Config, Descriptor, Document, Manifest};
use crate::store::Store;

/// The annotation of a layer in the manifest of an image that jc-commit has made. No registry has the layer, and its
/// tar is made from the store again.
pub const COMMITTED: &str = "jc.committed";

/// The media types of images.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// The documents of an image in the store.
pub struct StoredImage {
    pub manifest: Manifest,
    /// The manifest in its original form.
    pub manifest_bytes: Vec<u8>,
    pub digest: Digest,
    pub config: Config,
    /// The configuration in its original form.
    pub config_bytes: Vec<u8>,
}

pub struct StoredLayer {
    pub name: String,
    pub root: OwnedFd,
}

/// The layers of an image in the store.
pub struct StoredLayers {
    /// The layers, the lowest first.
    pub layers: Vec<StoredLayer>,
    /// Whether root owns all files, in place of the owners in the layers.
    pub ignore_chown: bool,
}

impl StoredImage {
    /// The image that a record stands for. A record without a digest is an error, and so are documents that the store
    /// lacks.
    pub fn of(store: &Store, record: &Record) -> Result<Self> {
        let Some(digest) = &record.digest else {
            return Err(Error::new("record: no \"digest\", so it stands for no image")
                .hint("jc-pull and jc-commit print records of images"));
        };
        let digest = Digest::parse(digest).map_err(|e| e.context("record"))?;
        let manifest_bytes = document(store, "manifest", &digest)?;
        let manifest = match Document::parse(&manifest_bytes, None)? {
            Document::Manifest(manifest) => manifest,
            Document::Index(_) => {
                return Err(Error::new(format_args!("record: {digest} is an index")));
            }
        };
        let config_bytes = document(store, "config", &manifest.config.digest)?;
        let config = Config::parse(&config_bytes, manifest.layers.len())
            .map_err(|e| e.context(format_args!("config {}", manifest.config.digest)))?;
        Ok(Self { manifest, manifest_bytes, digest, config, config_bytes })
    }

    /// The media type of the manifest.
    pub fn media_type(&self) -> String {
        let named = serde_json::from_slice::<Map<String, Value>>(&self.manifest_bytes).ok();
        let named = named.and_then(|map| Some(map.get("mediaType")?.as_str()?.to_owned()));
        let docker = self.manifest.config.media_type.starts_with("application/vnd.docker.");
        named.unwrap_or_else(|| (if docker { DOCKER_MANIFEST } else { OCI_MANIFEST }).to_owned())
    }
}

/// Whether jc-commit has made a layer.
pub fn is_committed(layer: &Descriptor) -> bool {
    layer.annotations.contains_key(COMMITTED)
}

fn document(store: &Store, what: &str, digest: &Digest) -> Result<Vec<u8>> {
    store.blob(digest).ok_or_else(|| {
        Error::new(format_args!("record: {what} {digest} is not in the store"))
            .hint("--store and JC_STORE name the store; jc-pull fetches the image again")
    })
}

impl StoredLayers {
    /// Opens the layers of an image, and keeps them from removal. A layer that the store lacks is an error.
    pub fn open(store: &Store, diff_ids: &[Digest]) -> Result<Self> {
        let mut missing = None;
        for ignore_chown in [false, true] {
            let mut layers = Vec::<StoredLayer>::new();
            for (names, diff_id) in LayerNames::of(diff_ids, ignore_chown).iter().zip(diff_ids) {
                let lower = layers.last().map(|layer| &layer.root);
                let Some((name, root)) = names.find(|name| store.hold_layer(name), lower)? else {
                    missing.get_or_insert(diff_id);
                    break;
                };
                layers.push(StoredLayer { name, root });
            }
            if layers.len() == diff_ids.len() {
                return Ok(Self { layers, ignore_chown });
            }
        }
        Err(missing.map_or_else(|| Error::new("an image without layers"), lost))
    }

    /// The descriptors of all layers, the uppermost first.
    pub fn all(&self) -> Result<Vec<OwnedFd>> {
        self.below(self.layers.len())
    }

    /// The descriptors of the layers below a number, the uppermost first.
    pub fn below(&self, number: usize) -> Result<Vec<OwnedFd>> {
        let layers = self.layers.iter().take(number).rev();
        layers.map(|layer| layer.root.try_clone().op("dup")).collect()
    }
}

fn lost(diff_id: &Digest) -> Error {
    Error::new(format_args!("layer {diff_id} is not in the store"))
        .hint("jc-pull fetches the image again; jc-commit makes its layers again")
}
