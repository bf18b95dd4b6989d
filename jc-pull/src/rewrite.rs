//! The documents of an image whose layers have got other forms (image-spec manifest.md and config.md).

use jc_unshare::{Error, Result};
use serde_json::{Value, json};

use crate::digest::Digest;
use crate::stored::{COMMITTED, OCI_CONFIG, OCI_MANIFEST, StoredImage};

/// A layer that the destination has.
pub struct Sent {
    pub diff_id: Digest,
    /// The descriptor in place of that in the manifest, if the blob is another one.
    pub replaced: Option<Value>,
}

/// The manifest, its media type and the configuration of an image with the layers that were sent. They stay unchanged
/// if all layers have, and become those of OCI if one has another form.
pub fn rewrite(image: &StoredImage, layers: &[Sent]) -> Result<(Vec<u8>, String, Vec<u8>)> {
    let is_same = layers.iter().all(|layer| layer.replaced.is_none());
    if is_same {
        return Ok((image.manifest_bytes.clone(), image.media_type(), image.config_bytes.clone()));
    }
    let mut config = image.config_bytes.clone();
    let diff_ids: Vec<&Digest> = layers.iter().map(|layer| &layer.diff_id).collect();
    if !diff_ids.iter().copied().eq(image.config.diff_ids()) {
        let mut document = parse(&config)?;
        document["rootfs"]["diff_ids"] = json!(diff_ids);
        config = document.to_string().into_bytes();
    }
    let mut manifest = parse(&image.manifest_bytes)?;
    let old = manifest["layers"].as_array().cloned().unwrap_or_default();
    let new = old.into_iter().zip(layers).map(|(old, layer)| match &layer.replaced {
        Some(new) => new.clone(),
        None => as_oci(old),
    });
    manifest["layers"] = new.collect();
    manifest["mediaType"] = json!(OCI_MANIFEST);
    manifest["config"] = config_descriptor(&config);
    Ok((manifest.to_string().into_bytes(), OCI_MANIFEST.to_owned(), config))
}

/// The descriptor of a configuration.
pub fn config_descriptor(config: &[u8]) -> Value {
    json!({"mediaType": OCI_CONFIG, "digest": Digest::of(config), "size": config.len()})
}

/// The descriptor of a layer with the media type of OCI.
pub fn as_oci(mut layer: Value) -> Value {
    let media_type = match layer["mediaType"].as_str().unwrap_or_default() {
        "application/vnd.docker.image.rootfs.diff.tar" => "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip"
        | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => {
            "application/vnd.oci.image.layer.v1.tar+gzip"
        }
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => {
            "application/vnd.oci.image.layer.v1.tar+zstd"
        }
        "application/vnd.docker.image.rootfs.foreign.diff.tar" => {
            "application/vnd.oci.image.layer.v1.tar"
        }
        other => other,
    };
    layer["mediaType"] = json!(media_type);
    layer
}

/// The descriptor of a layer that jc-commit has made, whose tar the store can make again.
pub fn committed(diff_id: &Digest, size: u64) -> Value {
    json!({
        "mediaType": crate::stored::OCI_LAYER,
        "digest": diff_id,
        "size": size,
        "annotations": {COMMITTED: "true"},
    })
}

/// Parses a document that has been verified.
pub fn parse(bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(bytes).map_err(|e| Error::new(format_args!("not a document: {e}")))
}
