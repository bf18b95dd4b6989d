//! A new image in the store: a base, one more layer, and a changed configuration.
//!
//! A layer is unpacked into the store from whatever form it comes in. Its digest is that of the tar that the store's
//! files give, so jc-push can make the same tar again.

use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;

use jc_unshare::record::Record;
use jc_unshare::time::rfc3339;
use jc_unshare::{Context, Error, Result, strerror};
use serde_json::{Value, json};

use crate::cancel::Cancel;
use crate::changes::Frozen;
use crate::config_edit::Edits;
use crate::digest::{Algorithm, Digest, Hasher, invalid};
use crate::implied::Implied;
use crate::inherit::inherit;
use crate::layer_names::LayerNames;
use crate::limits::Allowance;
use crate::manifest::{Config, Descriptor};
use crate::outgoing::{Bytes, tar_of};
use crate::record_line::record;
use crate::rewrite::{as_oci, committed, config_descriptor, parse};
use crate::staging::{StagedLayer, Staging};
use crate::store::{ImageEntry, Publication, Store};
use crate::stored::{OCI_MANIFEST, StoredImage, StoredLayers};
use crate::stream::Fetched;
use crate::sys;
use crate::tar::Reader;
use crate::unpack::{Destination, Lower, Unpacked, unpack};
use crate::writeback::Writeback;
use jc_unshare::image::Platform;

/// The image that a commit begins with.
pub struct Base {
    /// The manifest's layers.
    layers: Vec<Value>,
    config: Value,
    diff_ids: Vec<Digest>,
    stored: StoredLayers,
    origin: Option<String>,
}

/// The tar of a new layer.
pub struct NewTar {
    pub tar: Bytes,
    /// Whether the layer keeps the owner and mode of the root below it, whatever the tar has.
    pub keeps_root: bool,
    /// Whether the layer takes the place of all layers of the base.
    pub replaces_base: bool,
    /// A container that runs on once the tar has been read.
    pub frozen: Option<Frozen>,
}

/// The parts of a commit besides its layer.
pub struct Commit {
    pub edits: Edits,
    /// The time of the image, in seconds since the epoch.
    pub created: i64,
    /// The full name of the image.
    pub name: Option<String>,
    pub allowance: Allowance,
    pub no_sync: bool,
}

impl Base {
    /// The image of a record.
    pub fn of(store: &Store, record: &Record) -> Result<Self> {
        let image = StoredImage::of(store, record)?;
        let diff_ids = image.config.diff_ids().to_vec();
        let stored = StoredLayers::open(store, &diff_ids)?;
        let manifest = parse(&image.manifest_bytes)?;
        let layers = manifest["layers"].as_array().into_iter().flatten().cloned().map(as_oci);
        let config = parse(&image.config_bytes)?;
        let origin = record.origin.clone().or_else(|| record.reference.clone());
        Ok(Self { layers: layers.collect(), config, diff_ids, stored, origin })
    }

    /// An image without layers.
    pub fn empty(platform: &Platform) -> Self {
        let Platform { os, architecture, variant } = platform;
        let mut config = json!({
            "architecture": architecture, "os": os, "config": {},
            "rootfs": {"type": "layers", "diff_ids": []}, "history": [],
        });
        if let Some(variant) = variant {
            config["variant"] = json!(variant);
        }
        let stored = StoredLayers { layers: Vec::new(), ignore_chown: false };
        Self { layers: Vec::new(), config, diff_ids: Vec::new(), stored, origin: None }
    }

    pub const fn stored(&self) -> &StoredLayers {
        &self.stored
    }
}

/// A layer in the work directory.
struct Layer {
    number: usize,
    name: String,
    diff_id: Digest,
    /// The length of the tar in bytes.
    size: u64,
}

impl Commit {
    /// Makes the image visible in the store. Returns its record.
    pub fn run(&self, store: &Store, mut base: Base, new: Option<NewTar>) -> Result<Record> {
        let mut staging = Staging::new(store, self.no_sync);
        let has_layer = new.is_some();
        if new.as_ref().is_some_and(|new| new.replaces_base) {
            base.clear();
        }
        let layer = new.map(|new| self.layer(&mut staging, &base, new)).transpose()?;
        let mut names: Vec<String> =
            base.stored.layers.iter().map(|layer| layer.name.clone()).collect();
        if let Some(layer) = &layer {
            names.push(layer.name.clone());
            base.layers.push(committed(&layer.diff_id, layer.size));
            base.diff_ids.push(layer.diff_id.clone());
        }
        if names.is_empty() {
            return Err(Error::new("an image without layers")
                .hint("--layer, --dir and --changes make a layer"));
        }
        let config = self.config(&mut base, has_layer)?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": config_descriptor(&config), "layers": base.layers,
        });
        let manifest = manifest.to_string().into_bytes();
        let parsed = Config::parse(&config, base.diff_ids.len())?;
        let entry = ImageEntry {
            reference: self.name.clone().unwrap_or_default(),
            origin: base.origin.clone(),
            platform: parsed.platform.to_string(),
            target: Digest::of(&manifest),
            manifest: Digest::of(&manifest),
            config: Digest::of(&config),
            layers: names,
        };
        let work = staging.work()?;
        work.add_blob(&entry.manifest, &manifest)?;
        work.add_blob(&entry.config, &config)?;
        let blobs = [entry.manifest.clone(), entry.config.clone()];
        let layers: Vec<_> = layer.into_iter().map(|layer| (layer.number, layer.name)).collect();
        let images = if self.name.is_some() { vec![entry.clone()] } else { Vec::new() };
        let publication = Publication { layers: &layers, blobs: &blobs, images: &images };
        if !work.publish(&publication, self.no_sync)? {
            return Err(Error::new("layers of the base have been removed from the store"));
        }
        let record = record(store, &parsed, &entry)?;
        Ok(Record { reference: self.name.clone(), ..record })
    }

    /// Unpacks a layer into the work directory.
    fn layer(&self, staging: &mut Staging<'_>, base: &Base, new: NewTar) -> Result<Layer> {
        let below = base.stored.all()?;
        let StagedLayer { number, root, sums } = staging.make_layer(&Descriptor::of(&[]))?;
        let destination = Destination {
            root: root.try_clone().op("dup")?,
            sums,
            lower: Lower::Known(&below),
            allowance: self.allowance,
            ignore_chown: base.stored.ignore_chown,
        };
        let limit = self.allowance.of_archive();
        let tar = Metered { inner: new.tar, allowance: limit, writeback: staging.writeback() };
        let mut reader = Reader::new(BufReader::with_capacity(128 << 10, tar));
        let Unpacked::Complete { mut implied, copied_from_lower } =
            unpack(&mut reader, destination)?
        else {
            return Err(Error::new("a layer without its lower layers"));
        };
        io::copy(&mut reader.into_inner(), &mut io::sink())
            .map_err(|e| Error::new(strerror(&e)))?;
        drop(new.frozen);
        if new.keeps_root {
            reset_root(&root).on("reset", "/")?;
            implied.set_implied(Implied::ROOT, true);
        }
        if !inherit(&root, &implied, &below)? {
            return Err(Error::new("a directory of the layer is a link in a lower layer"));
        }
        let (diff_id, size) = sum(&root, base.stored.all()?)?;
        let mut diff_ids = base.diff_ids.clone();
        diff_ids.push(diff_id.clone());
        let names = LayerNames::of(&diff_ids, base.stored.ignore_chown);
        let names = names.last().ok_or_else(|| Error::new("a layer without a name"))?;
        let fetched = Fetched { root, implied, copied_from_lower };
        let name = names.choose(&fetched, below.first())?.to_owned();
        let blob = Descriptor { digest: diff_id.clone(), size, ..Descriptor::of(&[]) };
        staging.work()?.set_blob(number, &blob)?;
        Ok(Layer { number, name, diff_id, size })
    }

    /// The new configuration.
    fn config(&self, base: &mut Base, has_layer: bool) -> Result<Vec<u8>> {
        let created = rfc3339(self.created);
        let bad = || Error::new("the configuration of the image is malformed");
        let mut entry = json!({"created": created, "created_by": "jc-commit"});
        if let Some(author) = &self.edits.author {
            entry["author"] = json!(author);
        }
        if !has_layer {
            entry["empty_layer"] = json!(true);
        }
        self.edits.apply(&mut base.config)?;
        let whole = base.config.as_object_mut().ok_or_else(bad)?;
        whole.insert("created".to_owned(), json!(created));
        let rootfs = json!({"type": "layers", "diff_ids": base.diff_ids});
        whole.insert("rootfs".to_owned(), rootfs);
        let old = whole.remove("history").unwrap_or(Value::Null);
        let mut history = old.as_array().cloned().unwrap_or_default();
        let is_empty = |entry: &Value| entry["empty_layer"].as_bool().unwrap_or(false);
        let known = history.iter().filter(|entry| !is_empty(entry)).count();
        let below = base.diff_ids.len() - usize::from(has_layer);
        // Readers count the entries that have a layer.
        let unknown =
            std::iter::repeat_n(json!({"created_by": "unknown"}), below.saturating_sub(known));
        history.extend(unknown);
        history.push(entry);
        whole.insert("history".to_owned(), Value::Array(history));
        Ok(base.config.to_string().into_bytes())
    }
}

impl Base {
    /// Removes all layers, and their history.
    fn clear(&mut self) {
        self.layers.clear();
        self.diff_ids.clear();
        self.stored.layers.clear();
        self.origin = None;
        self.config["history"] = json!([]);
    }
}

/// Gives a root the owner, mode, time and attributes of a root that no layer lists.
fn reset_root(root: &OwnedFd) -> rustix::io::Result<()> {
    for name in sys::xattr_names(root)?.iter().filter(|name| !sys::is_overlay_xattr(name)) {
        rustix::fs::fremovexattr(root, name.as_slice())?;
    }
    sys::reset_owner(root)?;
    rustix::fs::futimens(root, &sys::timestamps(crate::tar::Time::default()))
}

/// The digest and the length of the tar of a layer over the layers below it.
fn sum(root: &OwnedFd, below: Vec<OwnedFd>) -> Result<(Digest, u64)> {
    let mut tar = tar_of(root.try_clone().op("dup")?, below, &Cancel::default())?;
    let (mut hasher, mut size) = (Hasher::new(Algorithm::Sha256), 0);
    loop {
        let piece = tar.fill_buf().map_err(|e| Error::new(strerror(&e)))?;
        if piece.is_empty() {
            return Ok((hasher.finish(), size));
        }
        hasher.update(piece);
        let length = piece.len();
        size += length as u64;
        tar.consume(length);
    }
}

/// A tar that fails after the bytes of the allowance, and starts writes to the disk.
struct Metered {
    inner: Bytes,
    allowance: Allowance,
    writeback: Option<Writeback>,
}

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        if let Some(writeback) = &self.writeback {
            writeback.add(n);
        }
        self.allowance.bytes(n as u64).map_err(|e| invalid(e.to_string()))?;
        Ok(n)
    }
}
