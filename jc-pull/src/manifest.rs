//! Indexes, manifests and configurations (OCI image-spec, Docker schema 2).

use jc_unshare::{Error, Result};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::digest::Digest;
use jc_unshare::image::Platform;

/// The longest document that is read, in bytes: the least that the distribution-spec demands of
/// registries.
pub const MAX_DOCUMENT: u64 = 4 << 20;

/// The media types of manifests and indexes, as an `Accept` header.
pub const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// A reference to a blob or a document (image-spec descriptor.md).
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    /// The length of the content in bytes.
    pub size: u64,
    /// The platform of an image in an index.
    pub platform: Option<Platform>,
    /// Other places of a layer that registries may not distribute.
    #[serde(default)]
    pub urls: Vec<String>,
    #[serde(default)]
    pub annotations: Map<String, Value>,
}

impl Descriptor {
    /// The descriptor of bytes whose media type is unknown.
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            media_type: String::new(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            platform: None,
            urls: Vec::new(),
            annotations: Map::new(),
        }
    }
}

/// The images of a name, for several platforms (image-spec image-index.md).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Index {
    pub manifests: Vec<Descriptor>,
}

/// An image for one platform (image-spec manifest.md).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Manifest {
    pub config: Descriptor,
    /// The layers, the lowest first.
    pub layers: Vec<Descriptor>,
}

/// An index or a manifest.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Document {
    Index(Index),
    Manifest(Manifest),
}

/// The fields of all kinds of documents.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    fs_layers: Option<Value>,
}

impl Document {
    /// Parses a document that came with the media type `declared`. A document that two readers could take
    /// for two kinds is an error, since they would see two images under one digest.
    pub fn parse(bytes: &[u8], declared: Option<&str>) -> Result<Self> {
        let raw: Raw = serde_json::from_slice(bytes)
            .map_err(|e| Error::new(format_args!("not an image manifest: {e}")))?;
        if raw.fs_layers.is_some() || raw.schema_version == Some(1) {
            return Err(Error::new("a Docker schema 1 image, which holds no verifiable layers")
                .hint("push it again with a current tool"));
        }
        if raw.schema_version != Some(2) {
            return Err(Error::new("not an image manifest: schemaVersion is not 2"));
        }
        let declared = declared.map(essence).filter(|t| kind(t).is_some());
        if let (Some(own), Some(declared)) = (raw.media_type.as_deref(), declared)
            && own != declared
        {
            return Err(Error::new(format_args!("declared as {declared}, and is {own}")));
        }
        let document = match (raw.manifests, raw.config, raw.layers) {
            (Some(manifests), None, None) => Self::Index(Index { manifests }),
            (None, Some(config), Some(layers)) => Self::Manifest(Manifest { config, layers }),
            (Some(_), _, _) => return Err(Error::new("an index and a manifest in one document")),
            _ => return Err(Error::new("neither an index nor a manifest")),
        };
        let named = raw.media_type.as_deref().or(declared);
        match (named, &document) {
            (None, _) => Ok(document),
            (Some(named), Self::Index(_)) if kind(named) == Some(true) => Ok(document),
            (Some(named), Self::Manifest(_)) if kind(named) == Some(false) => Ok(document),
            (Some(named), _) => Err(Error::new(format_args!("media type {named} does not fit"))),
        }
    }
}

/// A media type without its parameters.
fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

/// Whether a media type is an index's. The result is `None` for other documents than indexes and
/// manifests.
fn kind(media_type: &str) -> Option<bool> {
    match media_type {
        "application/vnd.oci.image.index.v1+json"
        | "application/vnd.docker.distribution.manifest.list.v2+json" => Some(true),
        "application/vnd.oci.image.manifest.v1+json"
        | "application/vnd.docker.distribution.manifest.v2+json" => Some(false),
        _ => None,
    }
}

impl Index {
    /// The image for a platform. The error lists the platforms of the index.
    pub fn select(&self, target: &Platform) -> Result<&Descriptor> {
        let known = || self.manifests.iter().filter_map(|d| Some((d, d.platform.as_ref()?)));
        let best = known()
            .filter_map(|(d, platform)| Some((platform.distance(target)?, d)))
            .min_by_key(|(distance, _)| *distance);
        if let Some((_, descriptor)) = best {
            return Ok(descriptor);
        }
        // An index with one image of no platform has no choice.
        if let [only] = self.manifests.as_slice()
            && only.platform.is_none()
        {
            return Ok(only);
        }
        let have: Vec<String> =
            known().filter(|(_, p)| !p.is_unknown()).map(|(_, p)| p.to_string()).collect();
        let have = if have.is_empty() { "none".to_owned() } else { have.join(", ") };
        Err(Error::new(format_args!("no image for {target}; there is {have}")))
    }
}

impl Manifest {
    /// An error that names the kind of the artifact, if the artifact is no container image.
    pub fn check(&self) -> Result<()> {
        match essence(&self.config.media_type) {
            "application/vnd.oci.image.config.v1+json"
            | "application/vnd.docker.container.image.v1+json" => {}
            other => {
                return Err(Error::new(format_args!("an artifact ({other}), not an image")));
            }
        }
        self.layers.iter().try_for_each(check_layer)
    }
}

fn check_layer(layer: &Descriptor) -> Result<()> {
    let digest = &layer.digest;
    match essence(&layer.media_type) {
        "application/vnd.oci.image.layer.v1.tar"
        | "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.oci.image.layer.v1.tar+zstd"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
        | "application/vnd.docker.image.rootfs.diff.tar"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.zstd"
        | "application/vnd.docker.image.rootfs.foreign.diff.tar"
        | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => Ok(()),
        other if other.ends_with("+encrypted") => {
            Err(Error::new(format_args!("layer {digest} is encrypted ({other})")))
        }
        other => Err(Error::new(format_args!("layer {digest}: unknown media type {other:?}"))),
    }
}

/// The parts of an image configuration that a pull needs (image-spec config.md).
#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    #[serde(flatten)]
    pub platform: Platform,
    rootfs: RootFs,
    /// The part for the record, unchanged.
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: Map<String, Value>,
}

#[derive(Clone, Debug, Deserialize)]
struct RootFs {
    #[serde(default, deserialize_with = "null_is_default")]
    diff_ids: Vec<Digest>,
}

fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    d: D,
) -> Result<T, D::Error> {
    Option::deserialize(d).map(Option::unwrap_or_default)
}

impl Config {
    /// Parses an image configuration. A number of diff-ids that differs from `layers` is an error.
    pub fn parse(bytes: &[u8], layers: usize) -> Result<Self> {
        let config: Self = serde_json::from_slice(bytes)
            .map_err(|e| Error::new(format_args!("not an image configuration: {e}")))?;
        match config.rootfs.diff_ids.len() {
            found if found == layers => Ok(config),
            found => Err(Error::new(format_args!("{found} diff-ids for {layers} layers"))),
        }
    }

    /// The digests of the uncompressed layers, the lowest first.
    pub fn diff_ids(&self) -> &[Digest] {
        &self.rootfs.diff_ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

    fn descriptor(media_type: &str) -> String {
        format!(r#"{{"mediaType":"{media_type}","digest":"{D}","size":0}}"#)
    }

    fn manifest(config: &str, layer: &str) -> String {
        let (config, layer) = (descriptor(config), descriptor(layer));
        format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]}}"#)
    }

    #[test]
    fn a_document_is_one_thing() {
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, descriptor(OCI_MANIFEST));
        let both = r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#;
        let own = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[]}}"#);
        let image = manifest(OCI_CONFIG, "application/vnd.oci.image.layer.v1.tar");
        for (text, declared, fault) in [
            (index.as_str(), None, None),
            (&index, Some("application/vnd.oci.image.index.v1+json; charset=utf-8"), None),
            (&index, Some("application/json"), None),
            (&own, Some(OCI_INDEX), None),
            (&image, Some(OCI_MANIFEST), None),
            (&own, Some(OCI_MANIFEST), Some("declared as")),
            (&index, Some(OCI_MANIFEST), Some("media type")),
            (&image, Some(OCI_INDEX), Some("media type")),
            (both, None, Some("an index and a manifest")),
            ("[]", None, Some("not an image manifest")),
            ("{}", None, Some("not an image manifest: schemaVersion")),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#, None, Some("a Docker schema 1")),
            (r#"{"schemaVersion":2}"#, None, Some("neither")),
            (
                r#"{"schemaVersion":2,"manifests":[{"digest":"sha256:../..","size":1}]}"#,
                None,
                Some("not an image manifest"),
            ),
        ] {
            let found = Document::parse(text.as_bytes(), declared).map_err(|e| e.to_string());
            match fault {
                None => assert!(found.is_ok(), "{text}: {found:?}"),
                Some(fault) => assert!(found.unwrap_err().starts_with(fault), "{text}"),
            }
        }
    }

    #[test]
    fn artifacts_and_encrypted_layers_are_named() {
        let tar = "application/vnd.oci.image.layer.v1.tar";
        for (config, layer, fault) in [
            (OCI_CONFIG, tar, None),
            (OCI_CONFIG, "application/vnd.docker.image.rootfs.diff.tar.gzip", None),
            (
                "application/vnd.cncf.helm.config.v1+json",
                tar,
                Some("an artifact (application/vnd.cncf"),
            ),
            (OCI_CONFIG, "application/vnd.oci.image.layer.v1.tar+gzip+encrypted", Some("layer")),
            (OCI_CONFIG, "text/plain", Some("layer")),
        ] {
            let text = manifest(config, layer);
            let Ok(Document::Manifest(m)) = Document::parse(text.as_bytes(), None) else {
                panic!("{text}")
            };
            match fault {
                None => m.check().unwrap(),
                Some(fault) => assert!(m.check().unwrap_err().to_string().starts_with(fault)),
            }
        }
    }

    #[test]
    fn an_index_gives_the_platforms_image_or_says_what_it_has() {
        let entry = |os: &str, arch: &str| {
            format!(
                r#"{{"digest":"{D}","size":0,"platform":{{"os":"{os}","architecture":"{arch}"}}}}"#
            )
        };
        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[{},{},{}]}}"#,
            entry("linux", "arm64"),
            entry("linux", "amd64"),
            entry("unknown", "unknown")
        );
        let Ok(Document::Index(index)) = Document::parse(text.as_bytes(), None) else { panic!() };
        let chosen = index.select(&Platform::parse("linux/amd64").unwrap()).unwrap();
        assert_eq!(chosen, &index.manifests[1]);
        let error = index.select(&Platform::parse("linux/s390x").unwrap()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no image for linux/s390x; there is linux/arm64, linux/amd64"
        );
    }

    #[test]
    fn a_configuration_has_a_diff_id_for_each_layer() {
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","config":null,
                "rootfs":{{"type":"layers","diff_ids":["{D}"]}}}}"#
        );
        let config = Config::parse(text.as_bytes(), 1).unwrap();
        assert_eq!(config.platform.to_string(), "linux/amd64");
        assert_eq!(config.diff_ids()[0].to_string(), D);
        let error = Config::parse(text.as_bytes(), 2).unwrap_err();
        assert_eq!(error.to_string(), "1 diff-ids for 2 layers");
    }
}
