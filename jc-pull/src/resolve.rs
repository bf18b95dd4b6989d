//! From the name of an image to its verified manifest and configuration.

use std::io::Read;
use std::sync::Arc;

use clap::ValueEnum;
use jc_unshare::{Error, Result, strerror};

use crate::cancel::Cancel;
use crate::digest::{Digest, Verify};
use crate::manifest::{Config, Descriptor, Document, MAX_DOCUMENT, Manifest};
use crate::source::{RawDocument, Source};
use crate::store::{ImageEntry, Store};
use jc_unshare::image::Platform;

/// The levels of indexes in an index.
const MAX_NESTING: usize = 4;

/// The value of `--pull`: whether a pull asks the source of an image.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Policy {
    /// The source is asked at every pull.
    Always,
    /// The source is asked if the store lacks the image.
    Missing,
    Never,
}

/// An image with its verified documents.
pub struct Resolved {
    pub name: String,
    /// The digest of the name: the index's if there is one.
    pub target: Digest,
    pub manifest_digest: Digest,
    pub manifest: Manifest,
    /// The manifest in its original form.
    pub manifest_bytes: Vec<u8>,
    pub config: Config,
    /// The configuration in its original form.
    pub config_bytes: Vec<u8>,
    /// Whether the store lacked the manifest.
    pub is_new: bool,
    /// The entry of the store, if the source was not asked.
    known: Option<ImageEntry>,
    /// All documents: indexes, the manifest and the configuration.
    documents: Vec<(Digest, Vec<u8>)>,
}

impl Resolved {
    /// The documents that the store lacks now: a removal may have taken some since they were read.
    pub fn missing_documents<'a>(
        &'a self,
        store: &Store,
    ) -> impl Iterator<Item = (&'a Digest, &'a Vec<u8>)> {
        let missing = self.documents.iter().filter(|(digest, _)| store.blob(digest).is_none());
        missing.map(|(digest, bytes)| (digest, bytes))
    }

    /// The entry of the image in the store.
    pub fn entry(&self, store: &Store, layers: Vec<String>) -> ImageEntry {
        let mut entry = ImageEntry {
            reference: self.name.clone(),
            origin: None,
            platform: self.config.platform.to_string(),
            target: self.target.clone(),
            manifest: self.manifest_digest.clone(),
            config: self.manifest.config.digest.clone(),
            layers,
        };
        // A malformed entry is replaced.
        let now = || store.image(&entry.key()).ok().flatten();
        let known = self.known.clone().or_else(now);
        entry.origin = known.filter(|k| k.manifest == entry.manifest).and_then(|k| k.origin);
        entry
    }

    /// Whether a pull writes the entry of the image: not over that of another image if the source was not asked, since
    /// jc-commit or another pull has given the name to that image meanwhile.
    pub fn replaces(&self, now: Option<&ImageEntry>, entry: &ImageEntry) -> bool {
        let is_other = |known: &ImageEntry| now.is_some_and(|now| now.manifest != known.manifest);
        now != Some(entry) && !self.known.as_ref().is_some_and(is_other)
    }
}

/// A request for one image of a source.
pub struct ImageRequest<'a> {
    pub store: &'a Store,
    pub policy: Policy,
    /// The host's platform if none is given.
    pub platform: Option<&'a Platform>,
}

/// Finds an image in the store or in its source. An image for another platform than the given one is an
/// error, and so is a document without the digest, the size or the type that its descriptor has.
pub fn resolve(
    source: &Arc<dyn Source>,
    request: &ImageRequest<'_>,
    cancel: &Cancel,
) -> Result<Resolved> {
    let ImageRequest { store, policy, platform } = *request;
    let is_offline = policy == Policy::Never;
    let mut resolver =
        Resolver { source, request, cancel, is_offline, is_new: false, documents: Vec::new() };
    let name = source.name();
    let known = match policy {
        Policy::Always => None,
        Policy::Missing | Policy::Never => store.find_image(&name, platform)?,
    };
    let resolved = match known {
        Some(entry) => {
            resolver.is_offline = true;
            match resolver.run(Some(entry.target.clone())) {
                Err(_) if policy == Policy::Missing => resolver.online(),
                other => other.map(|found| Resolved { known: Some(entry), ..found }),
            }
        }
        None if policy == Policy::Never => Err(not_in_store("the image")),
        None => resolver.online().map_err(|error| match store.find_image(&name, platform) {
            Ok(Some(_)) => error.hint("the store has the image: --policy missing uses that"),
            _ => error,
        }),
    };
    let resolved = resolved.map_err(|e| e.context(&name))?;
    let have = &resolved.config.platform;
    match platform.filter(|platform| have.distance(platform).is_none()) {
        Some(platform) => {
            Err(Error::new(format_args!("{name}: no image for {platform}; there is {have}")))
        }
        None => Ok(Resolved { name, ..resolved }),
    }
}

fn not_in_store(what: &str) -> Error {
    Error::new(format_args!("{what} is not in the store"))
        .hint("jc-pull --policy missing, or jc-run --pull missing, fetches it")
}

struct Resolver<'a> {
    source: &'a Arc<dyn Source>,
    request: &'a ImageRequest<'a>,
    cancel: &'a Cancel,
    is_offline: bool,
    /// Whether the store lacks the last manifest or index.
    is_new: bool,
    documents: Vec<(Digest, Vec<u8>)>,
}

impl Resolver<'_> {
    fn online(&mut self) -> Result<Resolved> {
        self.is_offline = false;
        let current = self.source.current()?;
        self.run(current)
    }

    fn run(&mut self, current: Option<Digest>) -> Result<Resolved> {
        self.documents.clear();
        let host = Platform::host();
        let (mut raw, target) = match current {
            Some(digest) => (self.manifest(&digest, None)?, digest),
            None => {
                let raw = self.source.document(None)?;
                let digest = Digest::of(&raw.bytes);
                self.is_new = self.request.store.blob(&digest).is_none();
                self.keep(&digest, &raw.bytes);
                (raw, digest)
            }
        };
        let mut digest = target.clone();
        for _ in 0..=MAX_NESTING {
            let declared = raw.media_type.as_deref();
            let document = Document::parse(&raw.bytes, declared).map_err(|e| e.context(&digest))?;
            let chosen = match document {
                Document::Index(index) => {
                    index.select(self.request.platform.unwrap_or(&host))?.clone()
                }
                Document::Manifest(manifest) => {
                    manifest.check()?;
                    let (config, config_bytes) = self.config(&manifest)?;
                    return Ok(Resolved {
                        name: String::new(),
                        target,
                        manifest_digest: digest,
                        manifest,
                        manifest_bytes: raw.bytes,
                        config,
                        config_bytes,
                        is_new: self.is_new,
                        known: None,
                        documents: std::mem::take(&mut self.documents),
                    });
                }
            };
            raw = self.manifest(&chosen.digest, Some(&chosen))?;
            digest = chosen.digest;
        }
        Err(Error::new("indexes inside indexes, without end"))
    }

    fn keep(&mut self, digest: &Digest, bytes: &[u8]) {
        self.documents.push((digest.clone(), bytes.to_vec()));
    }

    /// The document of a digest. A size or type that differs from those in an index is an error.
    fn manifest(&mut self, digest: &Digest, listed: Option<&Descriptor>) -> Result<RawDocument> {
        let listed_type = listed.map(|d| d.media_type.clone()).filter(|t| !t.is_empty());
        let size = listed.map(|d| d.size);
        if let Some(bytes) = self.request.store.blob(digest) {
            check_size("manifest", digest, &bytes, size)?;
            self.is_new = false;
            self.keep(digest, &bytes);
            return Ok(RawDocument { bytes, media_type: listed_type });
        }
        if self.is_offline {
            return Err(not_in_store(&format!("manifest {digest}")));
        }
        let raw = self.source.document(Some(digest))?;
        check_size("manifest", digest, &raw.bytes, size)?;
        digest.check(&raw.bytes).map_err(|e| e.context("manifest"))?;
        self.is_new = true;
        self.keep(digest, &raw.bytes);
        Ok(RawDocument { bytes: raw.bytes, media_type: listed_type.or(raw.media_type) })
    }

    fn config(&mut self, manifest: &Manifest) -> Result<(Config, Vec<u8>)> {
        let Descriptor { digest, size, .. } = &manifest.config;
        let context = |e: Error| e.context(format_args!("config {digest}"));
        let bytes = match self.request.store.blob(digest) {
            Some(bytes) => check_size("config", digest, &bytes, Some(*size)).map(|()| bytes)?,
            None if self.is_offline => return Err(not_in_store(&format!("config {digest}"))),
            None if *size > MAX_DOCUMENT => return Err(context(Error::new("more than 4 MiB"))),
            None => {
                let source = Arc::clone(self.source);
                let blob = source.blob(&manifest.config, self.cancel)?;
                let mut bytes = Vec::new();
                Verify::new(blob, digest.clone(), Some(*size))
                    .read_to_end(&mut bytes)
                    .map_err(|e| context(Error::new(strerror(&e))))?;
                bytes
            }
        };
        self.keep(digest, &bytes);
        let config = Config::parse(&bytes, manifest.layers.len()).map_err(context)?;
        Ok((config, bytes))
    }
}
/// An error if a document has another size than its descriptor. The store may have the document of a
/// wrong descriptor.
fn check_size(what: &str, digest: &Digest, bytes: &[u8], size: Option<u64>) -> Result<()> {
    let found = bytes.len() as u64;
    match size.filter(|size| *size != found) {
        Some(size) => Err(Error::new(format_args!("{what} {digest}: {found} bytes, not {size}"))),
        None => Ok(()),
    }
}
