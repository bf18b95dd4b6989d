//! Images made to order, in an OCI image layout (image-spec image-layout.md): good ones, and ones
//! that lie.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::layer::Layer;

/// `sha256:` and the hex digest of these bytes.
pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

/// The architecture of this machine, as image configs name it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Whose media types the manifest names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// OCI image-spec.
    Oci,
    /// Docker's image manifest version 2, schema 2.
    Docker,
}

/// How a layer's blob is stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Packing {
    /// As it is.
    Plain,
    /// By gzip.
    Gzip,
}

/// What the image says that is not so.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lie {
    /// The manifest gives the first layer this many bytes more than it has.
    LayerSize(i64),
    /// The config gives another diff-id for the first layer.
    DiffId,
    /// The config gives one diff-id more than there are layers.
    ExtraDiffId,
    /// The manifest gives the config one byte more than it has.
    ConfigSize,
}

/// An image before it is written.
pub struct Image {
    layers: Vec<(Vec<u8>, Packing)>,
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

    /// Puts a layer on top, gzipped.
    #[must_use]
    pub fn layer(self, layer: Layer) -> Self {
        self.packed(layer, Packing::Gzip)
    }

    /// Puts a layer on top.
    #[must_use]
    pub fn packed(mut self, layer: Layer, packing: Packing) -> Self {
        self.layers.push((layer.into_tar(), packing));
        self
    }

    /// What the config's `config` object is.
    #[must_use]
    pub fn config(mut self, config: Value) -> Self {
        self.config = config;
        self
    }

    /// Whose media types it has.
    #[must_use]
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// For another machine.
    #[must_use]
    pub fn architecture(mut self, architecture: &str) -> Self {
        self.architecture = architecture.to_owned();
        self
    }

    /// Says something that is not so.
    #[must_use]
    pub fn lie(mut self, lie: Lie) -> Self {
        self.lies.push(lie);
        self
    }

    fn says(&self, lie: Lie) -> bool {
        self.lies.contains(&lie)
    }

    fn media(&self, what: &str) -> String {
        let (oci, docker) = match what {
            "manifest" => ("image.manifest.v1+json", "distribution.manifest.v2+json"),
            "config" => ("image.config.v1+json", "container.image.v1+json"),
            "plain" => ("image.layer.v1.tar", "image.rootfs.diff.tar"),
            _ => ("image.layer.v1.tar+gzip", "image.rootfs.diff.tar.gzip"),
        };
        match self.format {
            Format::Oci => format!("application/vnd.oci.{oci}"),
            Format::Docker => format!("application/vnd.docker.{docker}"),
        }
    }

    /// Writes its blobs, and gives what of them a manifest or an index names.
    fn write(&self, layout: &Layout) -> Written {
        let mut layers = Vec::new();
        let mut diff_ids = Vec::new();
        for (tar, packing) in &self.layers {
            diff_ids.push(digest(tar));
            let (blob, media) = match packing {
                Packing::Plain => (tar.clone(), self.media("plain")),
                Packing::Gzip => (gzip(tar), self.media("gzip")),
            };
            layers.push(layout.blob(&blob, &media));
        }
        for lie in &self.lies {
            match lie {
                Lie::LayerSize(more) => {
                    let size = layers[0]["size"].as_i64().unwrap();
                    layers[0]["size"] = json!(size + more);
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
        let mut config = layout.blob(config.to_string().as_bytes(), &self.media("config"));
        if self.says(Lie::ConfigSize) {
            config["size"] = json!(config["size"].as_i64().unwrap() + 1);
        }
        let media = self.media("manifest");
        let manifest = json!({
            "schemaVersion": 2, "mediaType": media, "config": config, "layers": layers,
        });
        let mut descriptor = layout.blob(manifest.to_string().as_bytes(), &media);
        descriptor["platform"] = json!({"architecture": self.architecture, "os": "linux"});
        Written { descriptor, config, layers }
    }
}

/// Where an image's parts are.
#[derive(Clone, Debug)]
pub struct Written {
    /// The descriptor of its manifest.
    pub descriptor: Value,
    /// The descriptor of its config.
    pub config: Value,
    /// The descriptors of its layers, lowest first.
    pub layers: Vec<Value>,
}

impl Written {
    /// The digest of its manifest.
    pub fn digest(&self) -> &str {
        self.descriptor["digest"].as_str().unwrap()
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

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Adds an image under a tag.
    pub fn image(&self, tag: &str, image: &Image) -> Written {
        let written = image.write(self);
        self.tag(tag, written.descriptor.clone());
        written
    }

    /// Adds an index of images for several platforms under a tag.
    pub fn index(&self, tag: &str, images: &[Image]) -> Vec<Written> {
        let docker = images.iter().any(|image| image.format == Format::Docker);
        let media = if docker {
            "application/vnd.docker.distribution.manifest.list.v2+json"
        } else {
            "application/vnd.oci.image.index.v1+json"
        };
        let written: Vec<Written> = images.iter().map(|image| image.write(self)).collect();
        let manifests: Vec<&Value> = written.iter().map(|w| &w.descriptor).collect();
        let index = json!({"schemaVersion": 2, "mediaType": media, "manifests": manifests});
        self.tag(tag, self.blob(index.to_string().as_bytes(), media));
        written
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

    fn blob(&self, bytes: &[u8], media: &str) -> Value {
        let digest = digest(bytes);
        let descriptor = json!({"mediaType": media, "digest": digest, "size": bytes.len()});
        fs::write(self.blob_path(&descriptor), bytes).unwrap();
        descriptor
    }

    /// Where the blob of a descriptor is.
    pub fn blob_path(&self, descriptor: &Value) -> PathBuf {
        let digest = descriptor["digest"].as_str().unwrap();
        self.dir.join("blobs").join(digest.replace(':', "/"))
    }

    /// Changes what a blob holds, and nothing that names it.
    pub fn damage(&self, descriptor: &Value, how: impl FnOnce(&mut Vec<u8>)) {
        let path = self.blob_path(descriptor);
        let mut bytes = fs::read(&path).unwrap();
        let before = bytes.clone();
        how(&mut bytes);
        assert!(bytes != before, "no damage done");
        fs::write(path, bytes).unwrap();
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
