//! The layers of an image on their way to a destination: from their origin, or from the store.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, OnceLock};

use jc_unshare::{Context, Error, Result, strerror};

use crate::cancel::Cancel;
use crate::changes::{LayerOptions, write_over};
use crate::compress::Decoder;
use crate::digest::{Algorithm, Digest, Hasher, invalid};
use crate::encode::Compression;
use crate::manifest::Descriptor;
use crate::parallel::lock;
use crate::pipe::{PieceWriter, Pipe};
use crate::source::Source;
use crate::stored::StoredLayers;
use jc_unshare::image::Name;

/// The bytes of a layer.
pub type Bytes = Box<dyn Read + Send>;

/// The places from which the layers of an image have come.
pub struct Origins<'a> {
    /// The means to open the places, each with its own logins.
    pub opener: &'a (dyn Fn(&Name) -> Result<Arc<dyn Source>> + Sync),
    pub names: Vec<Name>,
    /// The places that have been opened.
    opened: Mutex<Vec<(usize, Arc<dyn Source>)>>,
}

impl<'a> Origins<'a> {
    pub const fn new(
        opener: &'a (dyn Fn(&Name) -> Result<Arc<dyn Source>> + Sync),
        names: Vec<Name>,
    ) -> Self {
        Self { opener, names, opened: Mutex::new(Vec::new()) }
    }

    fn source(&self, number: usize, name: &Name) -> Result<Arc<dyn Source>> {
        let mut opened = lock(&self.opened);
        if let Some((_, source)) = opened.iter().find(|(known, _)| *known == number) {
            return Ok(Arc::clone(source));
        }
        let source = (self.opener)(name)?;
        opened.push((number, Arc::clone(&source)));
        Ok(source)
    }

    /// Opens a layer at the first place that has it. The error is that of the first place.
    pub fn open(&self, blob: &Descriptor, cancel: &Cancel) -> Result<Bytes> {
        let mut first = None;
        for (number, name) in self.names.iter().enumerate() {
            // Standard input has the records.
            let source = if name.is_stdin() {
                Err(Error::new("the archive came on standard input, and is gone"))
            } else {
                self.source(number, name)
            };
            match source.and_then(|source| source.blob(blob, cancel)) {
                Ok(bytes) => return Ok(bytes),
                Err(error) => drop(first.get_or_insert(error)),
            }
        }
        Err(first.unwrap_or_else(|| Error::new("its origin is not known")))
    }
}

/// The tar of a layer of the store, which is made again.
pub struct StoredTar {
    pub layers: Arc<StoredLayers>,
    /// The number of the layer. The lowest layer is number 0.
    pub number: usize,
    /// The digest that the tar must have.
    pub expected: Option<Digest>,
    /// The digest that the tar has, once it has been read.
    pub found: Arc<OnceLock<Digest>>,
}

impl StoredTar {
    /// Starts to make the tar. Another digest than the expected one is an error at the end.
    pub fn open(&self, cancel: &Cancel) -> Result<Bytes> {
        let layer = self.layers.layers.get(self.number);
        let layer = layer.ok_or_else(|| Error::new("an image without this layer"))?;
        let root = layer.root.try_clone().op("dup")?;
        let tar = tar_of(root, self.layers.below(self.number)?, cancel)?;
        let (expected, found) = (self.expected.clone(), Arc::clone(&self.found));
        let hasher = Some(Hasher::new(Algorithm::Sha256));
        Ok(Box::new(Summed { inner: tar, hasher, expected, found }))
    }

    /// Starts to compress the tar.
    pub fn compress(&self, compression: Compression, cancel: &Cancel) -> Result<Bytes> {
        compression.start(self.open(cancel)?).op("start a thread")
    }
}

/// Starts a thread that makes the tar of a layer over the layers `below` it, the uppermost first. The same layer over
/// the same layers gives the same bytes.
pub fn tar_of(root: OwnedFd, below: Vec<OwnedFd>, cancel: &Cancel) -> Result<Pipe> {
    let write = move |to: &mut PieceWriter<'_>| {
        let written = write_over(&root, below, &LayerOptions::default(), to);
        written.map_err(|e| io::Error::other(e.to_string()))
    };
    Pipe::of_writer(write, cancel.clone()).op("start a thread")
}

/// A reader that keeps the digest of its bytes.
struct Summed<R> {
    inner: R,
    /// Absent after the end.
    hasher: Option<Hasher>,
    expected: Option<Digest>,
    found: Arc<OnceLock<Digest>>,
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(buffer.get(..n).unwrap_or_default());
        }
        if n > 0 || buffer.is_empty() {
            return Ok(n);
        }
        if let Some(digest) = self.hasher.take().map(Hasher::finish) {
            if let Some(expected) = self.expected.as_ref().filter(|expected| **expected != digest) {
                return Err(invalid(format!("the layer {expected} has changed in the store")));
            }
            self.found.get_or_init(|| digest);
        }
        Ok(0)
    }
}

/// The tar in a blob. The caller verifies its digest.
pub fn decompress(blob: Bytes, cancel: &Cancel) -> Result<Bytes> {
    let pipe = Pipe::new(move || Ok(blob), cancel.clone()).op("start a thread")?;
    Ok(Box::new(Decoder::new(pipe).map_err(|e| Error::new(strerror(&e)))?))
}
