//! Images, from the store and their origins to a destination.

use std::io;
use std::sync::{Arc, Mutex, OnceLock};

use jc_unshare::{Error, Result, strerror};
use serde_json::{Value, json};

use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::encode::Compression;
use crate::manifest::Descriptor;
use crate::outgoing::{Bytes, Origins, StoredTar, decompress};
use crate::parallel::{lock, parallel};
use crate::progress::{Counted, LayerProgress, Progress};
use crate::rewrite::{Sent, rewrite};
use crate::sink::{Document, Form, Image, Open, Outgoing, Sink, Written};
use crate::store::Store;
use crate::stored::{StoredImage, StoredLayers, is_committed};
use jc_unshare::image::{Name, Transport};

/// The options of a push.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The most layers that are sent at a time.
    pub jobs: usize,
    pub compression: Compression,
    /// Whether the store's files replace a layer whose origin is gone.
    pub recompress: bool,
}

/// An image to push.
pub struct Outbound<'a> {
    pub image: StoredImage,
    pub origins: Origins<'a>,
    /// The repository of an origin, with its registry.
    pub repositories: Vec<(String, String)>,
}

/// The means of a push.
pub struct Pusher<'a> {
    pub store: &'a Store,
    pub options: Options,
    pub progress: &'a Arc<Progress>,
}

/// An image or index that the destination has.
pub struct Pushed {
    /// The digest of the manifest or index.
    pub digest: Digest,
    /// The digest of the configuration of an image.
    pub config: Option<Digest>,
}

impl Pusher<'_> {
    /// Sends an image. A `named` image gets the name of the destination. The second result is the descriptor of the
    /// image for an index.
    pub fn image(
        &self,
        outbound: &Outbound<'_>,
        sink: &dyn Sink,
        named: bool,
    ) -> Result<(Pushed, Value)> {
        let layers = self.layers(outbound, sink)?;
        let image = &outbound.image;
        let (manifest, media_type, config) = rewrite(image, &layers)?;
        let config_digest = Digest::of(&config);
        if sink.form() == Form::Blob {
            put_bytes(sink, &config)?;
        }
        let digest = if manifest == image.manifest_bytes {
            image.digest.clone()
        } else {
            Digest::of(&manifest)
        };
        let platform = Some(image.config.platform.clone());
        let manifest = Document { bytes: manifest, media_type, digest: digest.clone(), platform };
        let descriptor = manifest.descriptor();
        let diff_ids = layers.into_iter().map(|layer| layer.diff_id).collect();
        sink.put_image(Image { manifest, config, diff_ids }, named)?;
        Ok((Pushed { digest, config: Some(config_digest) }, descriptor))
    }

    /// Sends an index of images that the destination has.
    pub fn index(sink: &dyn Sink, descriptors: Vec<Value>) -> Result<Pushed> {
        let media_type = "application/vnd.oci.image.index.v1+json".to_owned();
        let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": descriptors});
        let bytes = index.to_string().into_bytes();
        let digest = Digest::of(&bytes);
        sink.put_index(Document { bytes, media_type, digest: digest.clone(), platform: None })?;
        Ok(Pushed { digest, config: None })
    }

    /// Sends all layers, several at a time.
    fn layers(&self, outbound: &Outbound<'_>, sink: &dyn Sink) -> Result<Vec<Sent>> {
        let image = &outbound.image;
        let transfer = Transfer {
            pusher: self,
            outbound,
            sink,
            stored: OnceLock::new(),
            cancel: Cancel::default(),
        };
        let count = image.manifest.layers.len();
        let sent: Mutex<Vec<Option<Sent>>> = Mutex::new((0..count).map(|_| None).collect());
        let failure = Mutex::new(None);
        let jobs = self.options.jobs.min(sink.jobs());
        parallel(jobs, (0..count).collect(), |number| {
            if transfer.cancel.is_given_up() {
                return;
            }
            match transfer.layer(number) {
                Ok(layer) => {
                    if let Some(slot) = lock(&sent).get_mut(number) {
                        *slot = Some(layer);
                    }
                }
                Err(error) => {
                    // The cause has its place before the other layers fail by the cancellation.
                    lock(&failure).get_or_insert(error);
                    transfer.cancel.give_up();
                }
            }
        });
        match lock(&failure).take() {
            Some(error) => Err(error),
            None => Ok(lock(&sent).drain(..).flatten().collect()),
        }
    }
}

/// The layers of one image on their way to one destination.
struct Transfer<'a> {
    pusher: &'a Pusher<'a>,
    outbound: &'a Outbound<'a>,
    sink: &'a dyn Sink,
    /// The layers in the store, once one of them is needed.
    stored: OnceLock<Arc<StoredLayers>>,
    cancel: Cancel,
}

impl Transfer<'_> {
    fn layer(&self, number: usize) -> Result<Sent> {
        let image = &self.outbound.image;
        let numbered = image.manifest.layers.get(number).zip(image.config.diff_ids().get(number));
        let Some((blob, diff_id)) = numbered else {
            return Err(Error::new("a layer without a diff-id"));
        };
        let context = |e: Error| e.context(format_args!("layer {}", blob.digest));
        if is_committed(blob) {
            return self.send_committed(number, blob.size, diff_id).map_err(context);
        }
        let written = match self.sink.form() {
            Form::Tar => Written { digest: diff_id.clone(), size: blob.size },
            Form::Blob => Written { digest: blob.digest.clone(), size: blob.size },
        };
        if !self.compresses(blob) && self.sink.has(&written).map_err(context)? {
            return Ok(Sent { diff_id: diff_id.clone(), replaced: None });
        }
        match self.send_from_origin(blob, diff_id) {
            Ok(sent) => Ok(sent),
            Err(Failure::Origin(_)) if self.pusher.options.recompress => {
                self.send_from_store(number, None).map(|(sent, _)| sent).map_err(context)
            }
            Err(Failure::Origin(error)) => Err(context(error).hint(
                "its origin does not give the layer; --recompress makes it from the store, with \
                 another digest",
            )),
            Err(Failure::Other(error)) => Err(context(error)),
        }
    }

    /// Whether a layer that no registry has had is compressed on its way.
    fn compresses(&self, blob: &Descriptor) -> bool {
        let is_archive =
            |name: &Name| matches!(name, Name::Path { transport: Transport::DockerArchive, .. });
        self.sink.form() == Form::Blob
            && self.pusher.options.compression != Compression::None
            && blob.media_type.ends_with(".tar")
            && self.outbound.origins.names.first().is_some_and(is_archive)
    }

    /// Sends a layer again from its origin.
    fn send_from_origin(&self, blob: &Descriptor, diff_id: &Digest) -> Result<Sent, Failure> {
        let progress = self.progress(&blob.digest, blob.size);
        let failed = Mutex::new(None);
        let compresses = self.compresses(blob);
        let is_blob = self.sink.form() == Form::Blob;
        let open = || -> Result<Bytes> {
            let opened = self.outbound.origins.open(blob, &self.cancel);
            let bytes = opened.inspect_err(|error| {
                lock(&failed).get_or_insert(error.to_string());
            })?;
            let bytes: Bytes = Box::new(Counted { inner: bytes, progress: Arc::clone(&progress) });
            if compresses {
                let tar = decompress(bytes, &self.cancel)?;
                let verified = crate::digest::Verify::new(tar, diff_id.clone(), None);
                let packed = self.pusher.options.compression.start(Box::new(verified));
                return packed.map_err(|e| Error::new(strerror(&e)));
            }
            if is_blob { Ok(bytes) } else { decompress(bytes, &self.cancel) }
        };
        let (digest, size) = match (compresses, is_blob) {
            (true, _) => (None, None),
            (false, true) => (Some(blob.digest.clone()), Some(blob.size)),
            (false, false) => (Some(diff_id.clone()), None),
        };
        let put = self.put(digest, size, &open);
        let failure = lock(&failed).take();
        let written = put.map_err(|error| match failure {
            Some(_) => Failure::Origin(error),
            None => Failure::Other(error),
        })?;
        progress.done();
        let media_type = self.pusher.options.compression.media_type();
        let replaced = compresses.then(|| descriptor(media_type, &written));
        Ok(Sent { diff_id: diff_id.clone(), replaced })
    }

    /// Sends a layer that jc-commit has made, unless the destination has it from an earlier push.
    fn send_committed(&self, number: usize, size: u64, diff_id: &Digest) -> Result<Sent> {
        let (store, layers) = (self.pusher.store, self.stored()?);
        let compression = match self.sink.form() {
            Form::Blob => self.pusher.options.compression,
            Form::Tar => Compression::None,
        };
        let name = layers.layers.get(number).map(|layer| layer.name.as_str()).unwrap_or_default();
        let form = compression.to_string();
        let known = match compression {
            Compression::None => Some((diff_id.clone(), size)),
            _ => store.sent(name, &form)?,
        };
        if let Some((digest, size)) = known {
            let written = Written { digest, size };
            if self.sink.has(&written)? {
                let replaced = Some(descriptor(compression.media_type(), &written));
                return Ok(Sent { diff_id: diff_id.clone(), replaced });
            }
        }
        let (sent, Written { digest, size }) = self.send_from_store(number, Some(diff_id))?;
        if compression != Compression::None {
            // Without the file, the next push sends the layer again.
            let _: Result<()> = store.add_sent(name, &form, &digest, size);
        }
        Ok(sent)
    }

    /// Sends a layer from the store, in a new form.
    fn send_from_store(&self, number: usize, expected: Option<&Digest>) -> Result<(Sent, Written)> {
        let (layers, found) = (self.stored()?, Arc::new(OnceLock::new()));
        let tar = StoredTar { layers, number, expected: expected.cloned(), found };
        let blob = self.outbound.image.manifest.layers.get(number);
        let size = blob.filter(|_| expected.is_some()).map_or(0, |blob| blob.size);
        let label = expected.or(blob.map(|blob| &blob.digest));
        let progress = label.map(|label| self.progress(label, size));
        let compression = match self.sink.form() {
            Form::Blob => self.pusher.options.compression,
            Form::Tar => Compression::None,
        };
        let open = || -> Result<Bytes> {
            let bytes = tar.compress(compression, &self.cancel)?;
            Ok(match &progress {
                Some(progress) => {
                    Box::new(Counted { inner: bytes, progress: Arc::clone(progress) })
                }
                None => bytes,
            })
        };
        let digest = expected.filter(|_| compression == Compression::None).cloned();
        let written = self.put(digest, None, &open)?;
        if let Some(progress) = progress {
            progress.done();
        }
        let diff_id = tar.found.get().or(expected).cloned();
        let diff_id = diff_id.ok_or_else(|| Error::new("a layer without a diff-id"))?;
        let replaced = Some(descriptor(compression.media_type(), &written));
        Ok((Sent { diff_id, replaced }, written))
    }

    fn put(&self, digest: Option<Digest>, size: Option<u64>, open: Open<'_>) -> Result<Written> {
        let authority = self.sink.authority();
        let mut repositories = self.outbound.repositories.iter();
        let mount_from = repositories.find(|(registry, _)| Some(registry.as_str()) == authority);
        let mount_from = mount_from.map(|(_, repository)| repository.clone());
        self.sink.put(&Outgoing { digest, size, mount_from, open })
    }

    fn progress(&self, digest: &Digest, size: u64) -> Arc<LayerProgress> {
        self.pusher.progress.expect(size);
        self.pusher.progress.layer(digest.short(), size)
    }

    fn stored(&self) -> Result<Arc<StoredLayers>> {
        if let Some(stored) = self.stored.get() {
            return Ok(Arc::clone(stored));
        }
        let opened = StoredLayers::open(self.pusher.store, self.outbound.image.config.diff_ids())?;
        Ok(Arc::clone(self.stored.get_or_init(|| Arc::new(opened))))
    }
}

/// A layer that was not sent.
enum Failure {
    /// No origin gives the layer.
    Origin(Error),
    Other(Error),
}

fn descriptor(media_type: &str, written: &Written) -> Value {
    json!({"mediaType": media_type, "digest": written.digest, "size": written.size})
}

/// Sends a document as a blob.
fn put_bytes(sink: &dyn Sink, bytes: &[u8]) -> Result<()> {
    let written = Written { digest: Digest::of(bytes), size: bytes.len() as u64 };
    if sink.has(&written)? {
        return Ok(());
    }
    let open = || -> Result<Bytes> { Ok(Box::new(io::Cursor::new(bytes.to_vec()))) };
    let Written { digest, size } = written;
    let (digest, size) = (Some(digest), Some(size));
    let config = Outgoing { digest, size, mount_from: None, open: &open };
    sink.put(&config).map(drop).map_err(|e| e.context("config"))
}
