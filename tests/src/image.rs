//! Images made to order, in an OCI image layout (image-spec image-layout.md): correct ones, and ones with false
//! statements.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};

use crate::layer::Layer;

/// `sha256:` and the hex digest of these bytes.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

/// `sha512:` and the hex digest of these bytes.
pub fn digest512(bytes: &[u8]) -> String {
    format!("sha512:{}", hex(&Sha512::digest(bytes)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// These bytes in one gzip member.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The architecture of this machine, as image configs name it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The family of media types that the manifest names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// OCI image-spec.
    Oci,
    /// Docker's image manifest version 2, schema 2.
    Docker,
}

/// The form of a layer's blob.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Packing {
    /// The tar archive itself.
    Plain,
    /// Compressed by gzip.
    Gzip,
}

/// A layer of an image: the blob, and its descriptions in the manifest and the config.
#[derive(Clone)]
pub struct Packed {
    /// The bytes that the registry serves.
    pub blob: Vec<u8>,
    /// The entry of the config. With a `sha512:` entry the digest of the blob is one of SHA-512 too.
    pub diff_id: String,
    /// The size that the manifest gives.
    pub size: usize,
    /// The media type that the manifest gives.
    pub media_type: String,
}

impl Packed {
    /// A tar archive compressed by gzip.
    pub fn gzip(tar: &[u8]) -> Self {
        Self::wrapped(tar, gzip(tar), "+gzip")
    }

    /// An uncompressed tar archive.
    pub fn plain(tar: &[u8]) -> Self {
        Self::wrapped(tar, tar.to_vec(), "")
    }

    /// A blob that the test has made from a tar archive, with a suffix of the media type.
    pub fn wrapped(tar: &[u8], blob: Vec<u8>, suffix: &str) -> Self {
        let media_type = format!("application/vnd.oci.image.layer.v1.tar{suffix}");
        Self { size: blob.len(), blob, diff_id: digest(tar), media_type }
    }
}

/// A false statement in an image.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lie {
    /// The manifest states this number of bytes more for the first layer.
    LayerSize(i64),
    /// The config states another diff-id for the first layer.
    DiffId,
    /// The config has one diff-id more than the image has layers.
    ExtraDiffId,
    /// The manifest states one byte more for the config.
    ConfigSize,
}

/// An image under construction.
pub struct Image {
    layers: Vec<Packed>,
    config: Value,
    format: Format,
    architecture: String,
    lies: Vec<Lie>,
}

impl Default for Image {
    fn default() -> Self {
        Self {
            layers: Vec::new(),
            config: json!({"Env": ["PATH=/bin"], "Cmd": ["sh"]}),
            format: Format::Oci,
            architecture: architecture().to_owned(),
            lies: Vec::new(),
        }
    }
}

impl Image {
    /// An OCI image for this machine without layers, which runs `sh`.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a layer on top, compressed by gzip.
    #[must_use]
    pub fn layer(self, layer: Layer) -> Self {
        self.packed(layer, Packing::Gzip)
    }

    /// Adds a layer on top, in this form.
    #[must_use]
    pub fn packed(self, layer: Layer, packing: Packing) -> Self {
        let tar = layer.into_tar();
        self.described(match packing {
            Packing::Plain => Packed::plain(&tar),
            Packing::Gzip => Packed::gzip(&tar),
        })
    }

    /// Adds a layer on top with the descriptions of the test.
    #[must_use]
    pub fn described(mut self, layer: Packed) -> Self {
        self.layers.push(layer);
        self
    }

    /// Sets the config's `config` object.
    #[must_use]
    pub fn config(mut self, config: Value) -> Self {
        self.config = config;
        self
    }

    /// Sets the family of media types.
    #[must_use]
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// Sets the architecture in the config and in the descriptor.
    #[must_use]
    pub fn architecture(mut self, architecture: &str) -> Self {
        self.architecture = architecture.to_owned();
        self
    }

    /// Adds a false statement.
    #[must_use]
    pub fn lie(mut self, lie: Lie) -> Self {
        self.lies.push(lie);
        self
    }

    fn says(&self, lie: Lie) -> bool {
        self.lies.contains(&lie)
    }

    /// A media type of this image's format.
    fn media(&self, oci: &str) -> String {
        let docker = match oci {
            "application/vnd.oci.image.manifest.v1+json" => "distribution.manifest.v2+json",
            "application/vnd.oci.image.config.v1+json" => "container.image.v1+json",
            "application/vnd.oci.image.layer.v1.tar" => "image.rootfs.diff.tar",
            "application/vnd.oci.image.layer.v1.tar+gzip" => "image.rootfs.diff.tar.gzip",
            "application/vnd.oci.image.index.v1+json" => "distribution.manifest.list.v2+json",
            other => return other.to_owned(),
        };
        match self.format {
            Format::Oci => oci.to_owned(),
            Format::Docker => format!("application/vnd.docker.{docker}"),
        }
    }

    /// The image's documents and blobs.
    pub fn build(&self) -> Built {
        let mut built = Built::default();
        let mut diff_ids: Vec<String> = self.layers.iter().map(|l| l.diff_id.clone()).collect();
        for layer in &self.layers {
            let is_sha512 = layer.diff_id.starts_with("sha512:");
            let digest = if is_sha512 { digest512(&layer.blob) } else { digest(&layer.blob) };
            let media = self.media(&layer.media_type);
            built.layers.push(json!({"mediaType": media, "digest": digest, "size": layer.size}));
            built.blobs.insert(digest, layer.blob.clone());
        }
        for lie in &self.lies {
            match lie {
                Lie::LayerSize(more) => {
                    let size = built.layers[0]["size"].as_i64().unwrap();
                    built.layers[0]["size"] = json!(size + more);
                }
                Lie::DiffId => diff_ids[0] = digest(b"something else"),
                Lie::ExtraDiffId => diff_ids.push(digest(b"something else")),
                Lie::ConfigSize => {}
            }
        }
        let config = json!({
            "architecture": self.architecture,
            "os": "linux",
            "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        built.config = built.add(&config, &self.media("application/vnd.oci.image.config.v1+json"));
        if self.says(Lie::ConfigSize) {
            built.config["size"] = json!(built.config["size"].as_i64().unwrap() + 1);
        }
        let media = self.media("application/vnd.oci.image.manifest.v1+json");
        let manifest = json!({
            "schemaVersion": 2, "mediaType": media,
            "config": built.config, "layers": built.layers,
        });
        built.descriptor = built.add(&manifest, &media);
        built.descriptor["platform"] = json!({"architecture": self.architecture, "os": "linux"});
        built
    }

    /// An index of images for several platforms.
    pub fn index(images: &[Self]) -> Built {
        let docker = images.iter().find(|image| image.format == Format::Docker);
        let media = docker.unwrap_or(&images[0]).media("application/vnd.oci.image.index.v1+json");
        let mut index = Built::default();
        let built: Vec<Built> = images.iter().map(Self::build).collect();
        let manifests: Vec<&Value> = built.iter().map(|image| &image.descriptor).collect();
        let document = json!({"schemaVersion": 2, "mediaType": media, "manifests": manifests});
        index.descriptor = index.add(&document, &media);
        index.blobs.extend(built.into_iter().flat_map(|image| image.blobs));
        index
    }
}

/// An image in memory: its blobs by digest, and the descriptors that name them.
#[derive(Clone, Debug, Default)]
pub struct Built {
    /// The documents and the layers, by digest.
    pub blobs: BTreeMap<String, Vec<u8>>,
    /// The descriptor of the manifest or of the index.
    pub descriptor: Value,
    /// The descriptor of the config.
    pub config: Value,
    /// The descriptors of the layers, lowest first.
    pub layers: Vec<Value>,
}

impl Built {
    /// An image with these layers.
    pub fn of(layers: &[Packed]) -> Self {
        layers.iter().cloned().fold(Image::new(), Image::described).build()
    }

    /// The digest of the manifest.
    pub fn digest(&self) -> &str {
        self.descriptor["digest"].as_str().unwrap()
    }

    /// The digest of a layer. The lowest layer is number 0.
    pub fn layer(&self, n: usize) -> &str {
        self.layers[n]["digest"].as_str().unwrap()
    }

    /// The bytes of the manifest.
    pub fn manifest(&self) -> &[u8] {
        &self.blobs[self.digest()]
    }

    /// Changes a blob and keeps its digest.
    pub fn damage(&mut self, digest: &str, how: impl FnOnce(&mut Vec<u8>)) {
        how(self.blobs.get_mut(digest).unwrap());
    }

    /// Changes the manifest, and updates its descriptor.
    pub fn edit_manifest(&mut self, how: impl FnOnce(&mut Value)) {
        let digest = self.digest().to_owned();
        let old = self.blobs.remove(&digest).unwrap();
        let mut manifest = serde_json::from_slice(&old).unwrap();
        how(&mut manifest);
        let media = self.descriptor["mediaType"].as_str().unwrap().to_owned();
        self.descriptor = self.add(&manifest, &media);
    }

    fn add(&mut self, document: &Value, media: &str) -> Value {
        let bytes = document.to_string().into_bytes();
        let descriptor = json!({"mediaType": media, "digest": digest(&bytes), "size": bytes.len()});
        self.blobs.insert(digest(&bytes), bytes);
        descriptor
    }
}

/// An OCI image layout.
#[derive(Clone, Debug)]
pub struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// An empty layout in a new directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let layout = Self { dir: dir.into() };
        fs::create_dir_all(layout.dir.join("blobs/sha256")).unwrap();
        fs::write(layout.dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        layout.write_index(&json!({"schemaVersion": 2, "manifests": []}));
        layout
    }

    /// The directory of the layout.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Adds an image under a tag.
    pub fn image(&self, tag: &str, image: &Image) -> Built {
        let built = image.build();
        self.put(tag, &built);
        built
    }

    /// Adds an index of images for several platforms under a tag.
    pub fn index(&self, tag: &str, images: &[Image]) -> Vec<Built> {
        self.put(tag, &Image::index(images));
        images.iter().map(Image::build).collect()
    }

    /// Adds a built image under a tag.
    pub fn put(&self, tag: &str, built: &Built) {
        for (digest, bytes) in &built.blobs {
            let path = self.blob_path(&json!({"digest": digest}));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        self.tag(tag, built.descriptor.clone());
    }

    fn tag(&self, tag: &str, mut descriptor: Value) {
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        let text = fs::read(self.dir.join("index.json")).unwrap();
        let mut index: Value = serde_json::from_slice(&text).unwrap();
        index["manifests"].as_array_mut().unwrap().push(descriptor);
        self.write_index(&index);
    }

    fn write_index(&self, index: &Value) {
        fs::write(self.dir.join("index.json"), index.to_string()).unwrap();
    }

    /// The path of the blob of a descriptor.
    pub fn blob_path(&self, descriptor: &Value) -> PathBuf {
        let digest = descriptor["digest"].as_str().unwrap();
        self.dir.join("blobs").join(digest.replace(':', "/"))
    }

    /// Changes the content of a blob, and keeps all descriptors.
    pub fn damage(&self, descriptor: &Value, how: impl FnOnce(&mut Vec<u8>)) {
        let path = self.blob_path(descriptor);
        let mut bytes = fs::read(&path).unwrap();
        let before = bytes.clone();
        how(&mut bytes);
        assert!(bytes != before, "no damage done");
        fs::write(path, bytes).unwrap();
    }
}
