//! The documents of an OCI image layout (image-spec image-layout.md).

use jc_unshare::{Error, Result};
use serde_json::{Value, json};

use super::Document;

/// The content of the file `oci-layout`.
pub const MARKER: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The path of a blob in a layout.
pub fn blob_path(digest: &crate::digest::Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// The content of `index.json` with a document under a tag. The document takes the place of an earlier one with the
/// same tag. Without a tag, it takes the place of one without a tag. A malformed index is an error.
pub fn with_entry(index: Option<&[u8]>, document: &Document, tag: Option<&str>) -> Result<Vec<u8>> {
    let bad = |why: &str| Error::new(format_args!("index.json: {why}"));
    let mut index: Value = match index {
        Some(text) => serde_json::from_slice(text).map_err(|e| bad(&e.to_string()))?,
        None => json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [],
        }),
    };
    let manifests = index.get_mut("manifests").and_then(Value::as_array_mut);
    let manifests = manifests.ok_or_else(|| bad("no list of manifests"))?;
    let tag_of = |entry: &Value| {
        entry.get("annotations").and_then(|all| all.get(REF_NAME)?.as_str()).map(str::to_owned)
    };
    manifests.retain(|entry| tag_of(entry).as_deref() != tag);
    let mut entry = document.descriptor();
    if let Some(tag) = tag {
        entry["annotations"] = json!({REF_NAME: tag});
    }
    manifests.push(entry);
    Ok(index.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    #[test]
    fn a_tag_names_one_document_and_other_entries_stay() {
        let document = |text: &str| Document {
            bytes: text.as_bytes().to_vec(),
            media_type: "m".to_owned(),
            digest: Digest::of(text.as_bytes()),
            platform: None,
        };
        let mut index = None;
        for (text, tag) in [("1", Some("a")), ("2", None), ("3", Some("a")), ("4", None)] {
            index = Some(with_entry(index.as_deref(), &document(text), tag).unwrap());
        }
        let index: Value = serde_json::from_slice(&index.unwrap()).unwrap();
        let digests: Vec<&str> = index["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["digest"].as_str().unwrap())
            .collect();
        let expected = ["3", "4"].map(|text| Digest::of(text.as_bytes()).to_string());
        assert_eq!(digests, expected);
        assert!(with_entry(Some(b"[]"), &document("1"), None).is_err());
    }
}
