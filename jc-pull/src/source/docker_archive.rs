//! Archives of `docker save` (`docker-archive` in containers-transports(5)): a tar with `manifest.json`,
//! which names the configuration and the layers of each image.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jc_unshare::{Error, Result, read_at_most, strerror};
use serde::Deserialize;
use serde_json::json;

use super::archive::{Archive, Spool};
use super::{RawDocument, Source};
use crate::cancel::Cancel;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::manifest::{Config, Descriptor, MAX_DOCUMENT};
use jc_unshare::image::{PLAIN, Reference, Transport};

/// The list of the images.
const INDEX: &str = "manifest.json";
const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// An image in an archive of `docker save`.
pub struct DockerArchive {
    path: PathBuf,
    tag: Option<String>,
    archive: Archive,
    /// A manifest in the form of a registry, made from `manifest.json`.
    manifest: Vec<u8>,
    /// The files of the blobs in the manifest.
    files: Vec<(Digest, String)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl DockerArchive {
    /// Selects the only image, or the image with a tag. Other archives are errors.
    pub fn open(path: &Path, tag: Option<&str>, spool: Spool<'_>) -> Result<Self> {
        let archive = Archive::open(path, spool)?;
        let context = |e: Error| e.context(path.display());
        let text = read(&archive, INDEX).map_err(context)?;
        let items: Vec<Item> = serde_json::from_slice(&text)
            .map_err(|e| context(Error::new(format_args!("manifest.json: {e}"))))?;
        let item = select(items, tag).map_err(context)?;
        let config = read(&archive, &item.config).map_err(context)?;
        let parsed = Config::parse(&config, item.layers.len()).map_err(context)?;
        let mut files = vec![(Digest::of(&config), item.config)];
        let mut layers = Vec::new();
        for (name, diff_id) in item.layers.into_iter().zip(parsed.diff_ids()) {
            let (digest, size) = blob(&archive, &name, diff_id).map_err(context)?;
            layers.push(json!({"mediaType": LAYER, "digest": digest, "size": size}));
            files.push((digest, name));
        }
        let config =
            json!({"mediaType": CONFIG, "digest": Digest::of(&config), "size": config.len()});
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
        });
        let (path, tag) = (archive.path().to_owned(), tag.map(str::to_owned));
        Ok(Self { path, tag, archive, manifest: manifest.to_string().into_bytes(), files })
    }
}

impl Source for DockerArchive {
    fn name(&self) -> String {
        Transport::DockerArchive.image(&self.path, self.tag.as_deref())
    }

    fn current(&self) -> Result<Option<Digest>> {
        Ok(Some(Digest::of(&self.manifest)))
    }

    fn document(&self, _: Option<&Digest>) -> Result<RawDocument> {
        Ok(RawDocument { bytes: self.manifest.clone(), media_type: Some(MANIFEST.to_owned()) })
    }

    fn blob(self: Arc<Self>, blob: &Descriptor, _: &Cancel) -> Result<Box<dyn Read + Send>> {
        let name = self.files.iter().find(|(digest, _)| *digest == blob.digest);
        let file = name.and_then(|(_, name)| self.archive.file(name));
        match file {
            Some((file, _)) => Ok(Box::new(file)),
            None => Err(Error::new(format_args!("{} is not in the archive", blob.digest))),
        }
    }
}

/// Digest and size of the file of a layer. The digest of a plain tar is the diff-id, which verifies the
/// file when it is read. A compressed file is read for its digest.
fn blob(archive: &Archive, name: &str, diff_id: &Digest) -> Result<(Digest, u64)> {
    let fault = |e: io::Error| Error::new(format_args!("{name}: {}", strerror(&e)));
    let open = || archive.file(name).ok_or_else(|| missing(name));
    let (mut file, size) = open()?;
    let mut start = [0; 4];
    let n = file.read(&mut start).map_err(fault)?;
    if !matches!(start.get(..n), Some([0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd])) {
        return Ok((diff_id.clone(), size));
    }
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let (mut file, _) = open()?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer).map_err(fault)? {
            0 => return Ok((hasher.finish(), size)),
            n => hasher.update(buffer.get(..n).unwrap_or_default()),
        }
    }
}

fn missing(name: &str) -> Error {
    let error = Error::new(format_args!("{name} is not in the archive"));
    if name == INDEX {
        return error.hint(format_args!("oci-archive:FILE is an OCI layout; {PLAIN}"));
    }
    error
}

fn read(archive: &Archive, name: &str) -> Result<Vec<u8>> {
    let (file, _) = archive.file(name).ok_or_else(|| missing(name))?;
    read_at_most(file, MAX_DOCUMENT, name)
}

/// Selects an image. Tags in archives are short or long names, and are compared as long ones.
fn select(mut items: Vec<Item>, tag: Option<&str>) -> Result<Item> {
    let full =
        |name: &str| Reference::parse(name).map_or_else(|_| name.to_owned(), |r| r.to_string());
    let tags = |item: &Item| item.repo_tags.iter().flatten().map(|t| full(t)).collect::<Vec<_>>();
    let all: Vec<String> = items.iter().flat_map(tags).collect();
    let all = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
    if let Some(tag) = tag {
        items.retain(|item| tags(item).contains(&full(tag)));
    }
    match (items.len(), tag) {
        (1, _) => Ok(items.remove(0)),
        (0, Some(tag)) => Err(Error::new(format_args!("no image {tag:?}; there is {all}"))),
        (n, _) => Err(Error::new(format_args!("the archive holds {n} images"))
            .hint(format_args!("choose one as docker-archive:FILE:REF; there is {all}"))),
    }
}
