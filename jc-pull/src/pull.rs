//! One image, from a source into the store.

use std::collections::BTreeSet;
use std::io::{self, BufReader, Read};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use jc_unshare::record::{self, Record};
use jc_unshare::{Context, Error, Result, strerror};

use crate::compress::Decoder;
use crate::digest::{Digest, Verify, invalid};
use crate::limits::Allowance;
use crate::manifest::{Config, Descriptor, Document, MAX_DOCUMENT, Manifest};
use crate::platform::Platform;
use crate::progress::{LayerProgress, Progress};
use crate::settle::settle;
use crate::source::{Raw, Source};
use crate::store::{ImageEntry, LayerNames, Store, Work};
use crate::sys;
use crate::tar::Reader;
use crate::unpack::{Unpacked, unpack};

/// As many layers are fetched at once: two for each core of a small machine, and no registry minds.
const JOBS: usize = 4;
/// An index may hold indexes, so deep.
const MAX_NESTING: usize = 4;
/// How much compressed and unpacked data one layer holds in memory, in bytes.
const BUFFER: usize = 128 << 10;
/// The tar of nothing.
const EMPTY_TAR: [u8; 1024] = [0; 1024];

/// Pulls the image for `platform`, or for the host, and says what to run.
pub fn pull(
    source: &dyn Source,
    store: &Store,
    platform: Option<&Platform>,
    allowance: Allowance,
    progress: &Progress,
) -> Result<Record> {
    let name = source.name();
    let pull = Pull { source, store, progress, allowance, work: store.work()? };
    pull.run(&name, platform).map_err(|e| e.context(name))
}

struct Pull<'a> {
    source: &'a dyn Source,
    store: &'a Store,
    progress: &'a Progress,
    allowance: Allowance,
    work: Work<'a>,
}

/// Documents on the way to an image, verified.
struct Resolved {
    target: Digest,
    manifest_digest: Digest,
    manifest: Manifest,
    config: Config,
    new_blobs: Vec<Digest>,
}

impl Pull<'_> {
    fn run(&self, name: &str, wanted: Option<&Platform>) -> Result<Record> {
        let resolved = self.resolve(wanted)?;
        let config = &resolved.config;
        if let Some(wanted) = wanted
            && config.platform.distance(wanted).is_none()
        {
            let have = &config.platform;
            return Err(Error::new(format_args!("no image for {wanted}; there is {have}")));
        }
        let layers = match resolved.manifest.layers.is_empty() {
            true => self.empty_layer()?,
            false => self.layers(&resolved)?,
        };
        let entry = ImageEntry {
            reference: name.to_owned(),
            platform: config.platform.to_string(),
            target: resolved.target,
            manifest: resolved.manifest_digest.clone(),
            config: resolved.manifest.config.digest,
            layers: layers.names,
        };
        self.work.publish(&layers.new, &resolved.new_blobs, &entry)?;
        Ok(Record {
            jc: record::VERSION,
            reference: Some(entry.reference.clone()),
            digest: Some(resolved.manifest_digest.to_string()),
            platform: Some(entry.platform.clone()),
            layers: Some(self.visible(&entry.layers)?),
            rootfs: None,
            config: config.config.clone(),
        })
    }

    /// From the name to one image's manifest and configuration.
    fn resolve(&self, wanted: Option<&Platform>) -> Result<Resolved> {
        let host = Platform::host();
        let (raw, named) = self.source.top()?;
        let target = named.unwrap_or_else(|| Digest::of(&raw.bytes));
        let mut new_blobs = Vec::new();
        let (mut digest, mut raw) = (target.clone(), raw);
        for _ in 0..=MAX_NESTING {
            let document = self.document(&digest, &raw)?;
            if self.store.blob(&digest).is_none() {
                self.work.add_blob(&digest, &raw.bytes)?;
                new_blobs.push(digest.clone());
            }
            let chosen = match document {
                Document::Index(index) => index.select(wanted.unwrap_or(&host))?.clone(),
                Document::Manifest(manifest) => {
                    manifest.check()?;
                    let config = self.config(&manifest, &mut new_blobs)?;
                    let manifest_digest = digest;
                    return Ok(Resolved { target, manifest_digest, manifest, config, new_blobs });
                }
            };
            raw = self.manifest(&chosen)?;
            digest = chosen.digest;
        }
        Err(Error::new("indexes inside indexes, without end"))
    }

    fn document(&self, digest: &Digest, raw: &Raw) -> Result<Document> {
        digest.check(&raw.bytes).map_err(|e| e.context("manifest"))?;
        let declared = raw.media_type.as_deref();
        Document::parse(&raw.bytes, declared).map_err(|e| e.context(digest))
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Raw> {
        let media_type = Some(descriptor.media_type.clone()).filter(|t| !t.is_empty());
        if let Some(bytes) = self.store.blob(&descriptor.digest) {
            return Ok(Raw { bytes, media_type });
        }
        let raw = self.source.manifest(descriptor)?;
        let found = raw.bytes.len() as u64;
        if found != descriptor.size {
            let Descriptor { digest, size, .. } = descriptor;
            return Err(Error::new(format_args!("manifest {digest}: {found} bytes, not {size}")));
        }
        Ok(Raw { bytes: raw.bytes, media_type: media_type.or(raw.media_type) })
    }

    fn config(&self, manifest: &Manifest, new_blobs: &mut Vec<Digest>) -> Result<Config> {
        let Descriptor { digest, size, .. } = &manifest.config;
        let bytes = match self.store.blob(digest) {
            Some(bytes) => bytes,
            None => {
                if *size > MAX_DOCUMENT {
                    return Err(Error::new(format_args!("config {digest}: more than 4 MiB")));
                }
                let blob = self.source.blob(&manifest.config)?;
                let mut bytes = Vec::new();
                Verify::new(blob, digest.clone(), Some(*size))
                    .read_to_end(&mut bytes)
                    .map_err(|e| Error::new(format_args!("config {digest}: {}", strerror(&e))))?;
                self.work.add_blob(digest, &bytes)?;
                new_blobs.push(digest.clone());
                bytes
            }
        };
        Config::parse(&bytes, manifest.layers.len())
            .map_err(|e| e.context(format_args!("config {digest}")))
    }

    /// Sees to it that every layer is in the store or in the work directory.
    fn layers(&self, resolved: &Resolved) -> Result<Layers> {
        let diff_ids = resolved.config.diff_ids();
        let names = LayerNames::of(diff_ids);
        let descriptors = &resolved.manifest.layers;
        let fetch = |number: usize, beneath: Option<&[OwnedFd]>| match (
            descriptors.get(number),
            diff_ids.get(number),
        ) {
            (Some(descriptor), Some(diff_id)) => self.fetch(number, descriptor, diff_id, beneath),
            _ => Err(Error::new("a layer without a diff-id")),
        };
        let missing = self.missing(&names)?;
        let mut fetched: Vec<Option<Fetched>> = names.iter().map(|_| None).collect();
        // The lowest has nothing beneath it; what the others have is known only later.
        let first = |number| fetch(number, if number == 0 { Some(&[]) } else { None });
        for (number, layer) in parallel(&missing, first)? {
            if let Some(slot) = fetched.get_mut(number) {
                *slot = layer;
            }
        }
        let mut layers = Layers { names: Vec::new(), new: Vec::new() };
        let mut beneath = Vec::<OwnedFd>::new();
        for (number, (names, layer)) in names.iter().zip(fetched).enumerate() {
            let present = names.find(self.store, beneath.first())?;
            let (name, fd) = match (present, layer) {
                (Some(name), _) => {
                    let fd = self.store.layer(&name)?;
                    (name, fd.ok_or_else(|| Error::new("a layer has gone from the store"))?)
                }
                (None, layer) => {
                    let again = || {
                        let layer = fetch(number, Some(&beneath))?;
                        layer.ok_or_else(|| Error::new("a layer without those beneath it"))
                    };
                    // None: it looked present and does not fit, or needs what is beneath.
                    let mut layer = layer.map_or_else(again, Ok)?;
                    if !settle(&layer.root, &layer.implied, &beneath)? {
                        layer = again()?;
                        settle(&layer.root, &layer.implied, &beneath)?;
                    }
                    let name = names.settled(&layer, beneath.first())?.to_owned();
                    layers.new.push((number, name.clone()));
                    (name, layer.root)
                }
            };
            layers.names.push(name);
            beneath.insert(0, fd);
        }
        Ok(layers)
    }

    /// The layers that the store has under neither of their names.
    fn missing(&self, names: &[LayerNames]) -> Result<Vec<usize>> {
        let mut missing = Vec::new();
        for (number, names) in names.iter().enumerate() {
            let (alone, chained) =
                (self.store.layer(&names.alone)?, self.store.layer(&names.chained)?);
            if alone.is_none() && chained.is_none() {
                missing.push(number);
            }
        }
        Ok(missing)
    }

    /// Nothing if the layer cannot be unpacked without those beneath it, which were not given.
    fn fetch(
        &self,
        number: usize,
        descriptor: &Descriptor,
        diff_id: &Digest,
        beneath: Option<&[OwnedFd]>,
    ) -> Result<Option<Fetched>> {
        let digest = &descriptor.digest;
        let progress = self.progress.layer(digest.short().to_owned(), descriptor.size);
        let root = self.work.make_layer(number)?;
        let into = Into { root: root.try_clone().op("dup")?, beneath, allowance: self.allowance };
        let blob = self.source.blob(descriptor)?;
        let unpacked = stream(blob, descriptor, diff_id, into, &progress)
            .map_err(|e| e.context(format_args!("layer {digest}")))?;
        let Unpacked::Whole { implied, dependent } = unpacked else { return Ok(None) };
        progress.done();
        Ok(Some(Fetched { root, implied, dependent }))
    }

    /// The one layer of an image that has none: an empty directory.
    fn empty_layer(&self) -> Result<Layers> {
        let name = Digest::of(&EMPTY_TAR).file_name();
        let mut layers = Layers { names: vec![name.clone()], new: Vec::new() };
        if self.store.layer(&name)?.is_none() {
            let empty: &[u8] = &EMPTY_TAR;
            unpack(&mut Reader::new(empty), self.work.make_layer(0)?, Some(&[]), self.allowance)?;
            layers.new.push((0, name));
        }
        Ok(layers)
    }

    /// The directories of the layers that show: of a layer that comes twice only the upper one
    /// does, as it sets the same again, and overlayfs takes no directory twice; and of those beneath
    /// an opaque root nothing does.
    fn visible(&self, names: &[String]) -> Result<Vec<std::path::PathBuf>> {
        let mut seen = BTreeSet::new();
        let mut paths = Vec::new();
        for name in names.iter().rev() {
            if seen.insert(name) {
                paths.push(self.store.layer_path(name));
            }
            if self.store.layer(name)?.is_some_and(sys::is_opaque) {
                break;
            }
        }
        paths.reverse();
        Ok(paths)
    }
}

/// An image's layers, all of them in the store or in the work directory.
struct Layers {
    /// Their names in the store, lowest first.
    names: Vec<String>,
    /// Which of them are in the work directory, by place in the image.
    new: Vec<(usize, String)>,
}

/// A layer that was unpacked and verified.
pub struct Fetched {
    /// Its directory.
    pub root: OwnedFd,
    /// The directories that it uses and does not list.
    pub implied: BTreeSet<Vec<u8>>,
    /// Whether it has taken something from the layers beneath.
    pub dependent: bool,
}

/// Where a layer goes.
struct Into<'a> {
    root: OwnedFd,
    beneath: Option<&'a [OwnedFd]>,
    allowance: Allowance,
}

/// The bytes' one way: source, digest and size, decompression, diff-id, tar, files.
fn stream(
    blob: Box<dyn Read + Send>,
    descriptor: &Descriptor,
    diff_id: &Digest,
    into: Into<'_>,
    progress: &LayerProgress<'_>,
) -> Result<Unpacked> {
    let broken = |e: io::Error| Error::new(strerror(&e));
    let blob = Counted { inner: blob, progress };
    let blob = Verify::new(blob, descriptor.digest.clone(), Some(descriptor.size));
    let decoder = Decoder::new(BufReader::with_capacity(BUFFER, blob)).map_err(broken)?;
    let tar = Limited { inner: decoder, allowance: into.allowance.of_archive() };
    let tar = Verify::new(tar, diff_id.clone(), None).called("the tar, by diff-id,");
    let mut reader = Reader::new(BufReader::with_capacity(BUFFER, tar));
    let unpacked = unpack(&mut reader, into.root, into.beneath, into.allowance)?;
    if matches!(unpacked, Unpacked::Whole { .. }) {
        // What follows the archive's end counts for the digests too.
        let rest = io::copy(&mut reader.into_inner(), &mut io::sink());
        rest.map_err(broken)?;
    }
    Ok(unpacked)
}

/// Ends with an error where a layer unpacks to more than it may.
struct Limited<R> {
    inner: R,
    allowance: Allowance,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.allowance.bytes(n as u64).map_err(|e| invalid(e.to_string()))?;
        Ok(n)
    }
}

struct Counted<'a> {
    inner: Box<dyn Read + Send>,
    progress: &'a LayerProgress<'a>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.progress.add(n);
        Ok(n)
    }
}

/// Does the jobs, several at a time; the first failure ends it all as soon as the others notice.
fn parallel<T: Send>(
    jobs: &[usize],
    work: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<(usize, T)>> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let results = Mutex::new(Vec::new());
    let first_error = Mutex::new(None);
    let worker = || {
        while !failed.load(Ordering::Relaxed) {
            let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
            match work(*job) {
                Ok(done) => {
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((*job, done));
                }
                Err(error) => {
                    failed.store(true, Ordering::Relaxed);
                    let mut slot = first_error.lock().unwrap_or_else(PoisonError::into_inner);
                    slot.get_or_insert(error);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        // This thread is a worker too: an image of one layer needs no other.
        for _ in 1..JOBS.min(jobs.len()) {
            scope.spawn(worker);
        }
        worker();
    });
    match first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(results.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}
