//! A layer's bytes on their one way: source, digest and size, decompression, diff-id, tar, files.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use jc_unshare::{Error, Result, strerror};

use crate::cancel::Cancel;
use crate::compress::Decoder;
use crate::digest::{Digest, Verify, invalid};
use crate::implied::Implied;
use crate::limits::Allowance;
use crate::manifest::Descriptor;
use crate::pipe::Pipe;
use crate::progress::LayerProgress;
use crate::source::Source;
use crate::sums::Sums;
use crate::tar::Reader;
use crate::unpack::{Unpacked, unpack};
use crate::writeback::Writeback;

/// A layer to fetch.
#[derive(Clone)]
pub struct Layer {
    /// Where from.
    pub source: Arc<dyn Source>,
    /// Its blob.
    pub blob: Descriptor,
    /// The digest of its tar.
    pub diff_id: Digest,
    /// When to stop.
    pub cancel: Cancel,
    /// Whether all of it is to be root's, whatever it says.
    pub ignore_chown: bool,
}

/// A layer that was unpacked and verified.
pub struct Fetched {
    /// Its directory.
    pub root: OwnedFd,
    /// The directories that the layer uses and does not list.
    pub implied: Implied,
    /// Whether it has taken something from the layers beneath.
    pub dependent: bool,
}

/// Unpacks a layer into `root`, an empty directory, and what is to be known of its files into `sums`.
/// Three threads do it, so that one large layer keeps more than one core busy: the first receives
/// and hashes, the second decompresses and hashes again, this one makes the files.
///
/// Nothing if it cannot be unpacked without the layers `beneath` it, which were not given.
pub fn fetch(
    layer: &Layer,
    root: OwnedFd,
    sums: Sums,
    beneath: Option<&[OwnedFd]>,
    allowance: Allowance,
    writeback: Option<&Writeback>,
    progress: &Arc<LayerProgress>,
) -> Result<Option<Fetched>> {
    let context = |e: Error| e.context(format_args!("layer {}", layer.blob.digest));
    let limit = allowance.of_archive();
    if { limit }.bytes(layer.blob.size).is_err() {
        let why =
            format_args!("a blob of {} bytes is longer than --max-size allows", layer.blob.size);
        return Err(context(Error::new(why)));
    }
    let into = root.try_clone().map_err(|e| context(Error::new(strerror(&e))))?;
    let source = Arc::clone(&layer.source);
    let blob = source.blob(&layer.blob, &layer.cancel).map_err(context)?;
    let blob = Counted { inner: blob, progress: Arc::clone(progress) };
    let blob = Verify::new(blob, layer.blob.digest.clone(), Some(layer.blob.size));
    let thread =
        |e: io::Error| context(Error::new(format_args!("start a thread: {}", strerror(&e))));
    let blob = Pipe::new(move || Ok(blob), layer.cancel.clone()).map_err(thread)?;
    let diff_id = layer.diff_id.clone();
    let (writeback, unpacked) = (writeback.cloned(), Arc::clone(progress));
    let tar = move || {
        let inner = Decoder::new(blob)?;
        let tar = Limited { inner, allowance: limit, writeback, progress: unpacked };
        Ok(Verify::new(tar, diff_id, None).called("the tar, by diff-id,"))
    };
    let mut reader = Reader::new(Pipe::new(tar, layer.cancel.clone()).map_err(thread)?);
    let ignore_chown = layer.ignore_chown;
    match unpack(&mut reader, into, beneath, allowance, ignore_chown, sums).map_err(context)? {
        Unpacked::NeedsBeneath => Ok(None),
        Unpacked::Whole { implied, dependent } => {
            // What follows the archive's end counts for the digests too.
            let rest = io::copy(&mut reader.into_inner(), &mut io::sink());
            rest.map_err(|e| context(Error::new(strerror(&e))))?;
            Ok(Some(Fetched { root, implied, dependent }))
        }
    }
}

/// Ends with an error where a layer unpacks to more than it may.
struct Limited<R> {
    inner: R,
    allowance: Allowance,
    writeback: Option<Writeback>,
    progress: Arc<LayerProgress>,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.progress.unpacked(n);
        if let Some(writeback) = &self.writeback {
            writeback.add(n);
        }
        self.allowance.bytes(n as u64).map_err(|e| invalid(e.to_string()))?;
        Ok(n)
    }
}

struct Counted {
    inner: Box<dyn Read + Send>,
    progress: Arc<LayerProgress>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.progress.add(n);
        Ok(n)
    }
}
