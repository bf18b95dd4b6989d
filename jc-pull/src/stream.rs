//! The bytes of a layer from its source to its files: digest and size, decompression, diff-id, tar.

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
use crate::progress::{Counted, LayerProgress};
use crate::source::Source;
use crate::tar::Reader;
use crate::unpack::{Destination, Unpacked, unpack};
use crate::writeback::Writeback;

/// A layer to fetch.
pub struct Layer {
    pub source: Arc<dyn Source>,
    pub blob: Descriptor,
    /// The digest of the tar.
    pub diff_id: Digest,
    pub cancel: Cancel,
}

/// A layer that is unpacked and verified.
pub struct Fetched {
    pub root: OwnedFd,
    /// The directories that the layer uses and does not list.
    pub implied: Implied,
    /// Whether the layer has copies of files in lower layers.
    pub copied_from_lower: bool,
}

/// Unpacks a layer into its destination. Three threads keep more than one core busy with one large layer:
/// the first receives and hashes, the second decompresses and hashes again, this one makes the files.
///
/// The result is `None` if the layer cannot be unpacked while its lower layers are unknown.
pub fn fetch(
    layer: &Layer,
    destination: Destination<'_>,
    writeback: Option<Writeback>,
    progress: &Arc<LayerProgress>,
) -> Result<Option<Fetched>> {
    let context = |e: Error| e.context(format_args!("layer {}", layer.blob.digest));
    let failed = |e: io::Error| context(Error::new(strerror(&e)));
    let limit = destination.allowance.of_archive();
    if { limit }.bytes(layer.blob.size).is_err() {
        let why =
            format_args!("a blob of {} bytes is longer than --max-size allows", layer.blob.size);
        return Err(context(Error::new(why)));
    }
    let root = destination.root.try_clone().map_err(failed)?;
    let thread =
        |e: io::Error| context(Error::new(format_args!("start a thread: {}", strerror(&e))));
    let blob = Arc::clone(&layer.source).blob(&layer.blob, &layer.cancel).map_err(context)?;
    let blob = Counted { inner: blob, progress: Arc::clone(progress) };
    let blob = Verify::new(blob, layer.blob.digest.clone(), Some(layer.blob.size));
    let blob = Pipe::new(move || Ok(blob), layer.cancel.clone()).map_err(thread)?;
    let (diff_id, progress) = (layer.diff_id.clone(), Arc::clone(progress));
    let tar = move || {
        let inner = Decoder::new(blob)?;
        let tar = Limited { inner, allowance: limit, writeback, progress };
        Ok(Verify::new(tar, diff_id, None).named("the tar, by diff-id,"))
    };
    let mut reader = Reader::new(Pipe::new(tar, layer.cancel.clone()).map_err(thread)?);
    match unpack(&mut reader, destination).map_err(context)? {
        Unpacked::NeedsLower => Ok(None),
        Unpacked::Complete { implied, copied_from_lower } => {
            // The digests cover the bytes behind the end of the archive, too.
            io::copy(&mut reader.into_inner(), &mut io::sink()).map_err(failed)?;
            Ok(Some(Fetched { root, implied, copied_from_lower }))
        }
    }
}

/// A reader that fails after the bytes of the allowance.
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
