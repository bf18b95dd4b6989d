//! Images, from their sources into the store.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufReader;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use jc_unshare::record::{self, Record};
use jc_unshare::{Context, Error, Result};

use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::limits::Allowance;
use crate::manifest::Descriptor;
use crate::parallel::parallel;
use crate::progress::Progress;
use crate::resolve::{Policy, Resolved};
use crate::settle::settle;
use crate::source::Source;
use crate::store::{ImageEntry, LayerNames, Publish, Store, Work};
use crate::stream::{Fetched, Layer, fetch};
use crate::sums::{self, Sums};
use crate::sys;
use crate::tar::Reader;
use crate::unpack::unpack;
use crate::writeback::Writeback;

/// The tar of nothing: what an image without layers has in their place.
const EMPTY_TAR: [u8; 1024] = [0; 1024];
/// How often layers may vanish under a pull's hands before it gives up.
const ROUNDS: usize = 3;

/// How to pull.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// As many layers are fetched at once.
    pub jobs: usize,
    /// What a layer may unpack to.
    pub allowance: Allowance,
    /// Whether sources may be asked for layers.
    pub policy: Policy,
    /// Leaves it to the kernel when data reaches the disk.
    pub no_sync: bool,
    /// All files are to be root's, whatever the layers say.
    pub ignore_chown: bool,
}

/// An image whose layers are to be had.
pub struct Image {
    /// Where from.
    pub source: Arc<dyn Source>,
    /// Which.
    pub resolved: Resolved,
    /// When to stop.
    pub cancel: Cancel,
}

/// Pulls the images, those behind each other on the command line at once. Gives what is there in
/// the end, in order up to the first that failed, and that one's error.
pub fn pull(
    store: &Store,
    images: &[Image],
    options: Options,
    progress: &Arc<Progress>,
) -> (Vec<Record>, Result<()>) {
    let mut batch = Batch {
        store,
        images,
        options,
        progress,
        work: None,
        writeback: None,
        places: 0,
        fetched: BTreeMap::new(),
        ready: BTreeMap::new(),
        errors: BTreeMap::new(),
    };
    match batch.run() {
        Ok(outcome) => outcome,
        Err(error) => (Vec::new(), Err(error)),
    }
}

/// A layer in the work directory.
struct Ready {
    place: usize,
    root: OwnedFd,
}

struct Batch<'a> {
    store: &'a Store,
    images: &'a [Image],
    options: Options,
    progress: &'a Arc<Progress>,
    /// Made when something has to be written.
    work: Option<Work<'a>>,
    /// Along with it, if that is to be synced.
    writeback: Option<Writeback>,
    /// As many directories for layers were made in it.
    places: usize,
    /// Layers that were unpacked, by diff-id.
    fetched: BTreeMap<Digest, (usize, Fetched)>,
    /// Layers that are as they will be in the store, by their names there.
    ready: BTreeMap<String, Ready>,
    /// Why an image failed.
    errors: BTreeMap<usize, Error>,
}

/// A layer to fetch, of that image.
struct Job {
    image: usize,
    place: usize,
    root: OwnedFd,
    sums: Sums,
    layer: Layer,
    lowest: bool,
}

impl Batch<'_> {
    fn run(&mut self) -> Result<(Vec<Record>, Result<()>)> {
        for _ in 0..ROUNDS {
            self.fetch_missing()?;
            let mut entries = Vec::new();
            let mut outcome = Ok(());
            for (number, image) in self.images.iter().enumerate() {
                match self.assemble(number, image) {
                    Ok(entry) => entries.push(entry),
                    Err(error) => {
                        outcome = Err(error.context(&image.resolved.name));
                        break;
                    }
                }
            }
            if self.publish(&entries)? {
                let records = self.images.iter().zip(&entries);
                let records = records.map(|(image, entry)| self.record(image, entry));
                return Ok((records.collect::<Result<_>>()?, outcome));
            }
        }
        Err(Error::new("layers are removed from the store as fast as they come"))
    }

    /// Fetches what is nowhere yet, all images' layers at once.
    fn fetch_missing(&mut self) -> Result<()> {
        let mut jobs = Vec::new();
        let mut seen = BTreeSet::new();
        for (number, image) in self.images.iter().enumerate() {
            let diff_ids = image.resolved.config.diff_ids();
            let layers = LayerNames::of(diff_ids, self.options.ignore_chown)
                .into_iter()
                .zip(image.layers(self.options.ignore_chown));
            for (at, (names, layer)) in layers.enumerate() {
                let here =
                    self.open(&names.alone)?.is_some() || self.open(&names.chained)?.is_some();
                let under_way = self.fetched.contains_key(&layer.diff_id);
                if here && let Err(error) = self.check_size(&names, &layer, &image.resolved) {
                    self.errors.entry(number).or_insert(error);
                }
                if !here && !under_way && seen.insert(layer.diff_id.clone()) {
                    self.may_fetch(&layer)?;
                    let (place, root, sums) = self.make_place(&layer.blob)?;
                    self.progress.expect(layer.blob.size);
                    jobs.push(Job { image: number, place, root, sums, layer, lowest: at == 0 });
                }
            }
        }
        let results = Mutex::new((&mut self.fetched, &mut self.errors));
        let (allowance, progress) = (self.options.allowance, self.progress);
        let writeback = self.writeback.as_ref();
        parallel(self.options.jobs, jobs, |job: Job| {
            let cancel = &job.layer.cancel;
            // The lowest has nothing beneath it; what the others have is known only later.
            let beneath: Option<&[OwnedFd]> = if job.lowest { Some(&[]) } else { None };
            if cancel.is_given_up() {
                return;
            }
            let outcome =
                fetch_one(&job.layer, job.root, job.sums, beneath, allowance, writeback, progress);
            let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
            match outcome {
                Ok(Some(fetched)) => {
                    results.0.insert(job.layer.diff_id.clone(), (job.place, fetched));
                }
                Ok(None) => {}
                // Those that follow from another's failure say nothing.
                Err(_) if cancel.is_given_up() => {}
                Err(error) => {
                    results.1.insert(job.image, error);
                    cancel.give_up();
                }
            }
        });
        Ok(())
    }

    /// Of a layer that is not fetched it is known how long it was when it was: a manifest that has
    /// not been seen before must not say otherwise of that blob.
    fn check_size(&self, names: &LayerNames, layer: &Layer, resolved: &Resolved) -> Result<()> {
        let new = resolved.new_blobs.iter().any(|(d, _)| *d == resolved.manifest_digest);
        for name in [&names.alone, &names.chained].into_iter().filter(|_| new) {
            let Some(sums) = self.store.sums(name)? else { continue };
            let known = sums::Record::read_blob(&mut BufReader::new(sums)).op("read sums")?;
            let Descriptor { digest, size, .. } = &layer.blob;
            if known.blob == *digest && known.blob_size != *size {
                let found = known.blob_size;
                return Err(Error::new(format_args!("layer {digest}: {found} bytes, not {size}")));
            }
        }
        Ok(())
    }

    /// Makes an image's layers what they will be in the store.
    fn assemble(&mut self, number: usize, image: &Image) -> Result<ImageEntry> {
        if let Some(error) = self.errors.remove(&number) {
            return Err(error);
        }
        let resolved = &image.resolved;
        let mut names = Vec::new();
        let mut beneath = Vec::<OwnedFd>::new();
        let all = LayerNames::of(resolved.config.diff_ids(), self.options.ignore_chown);
        for (layer_names, layer) in all.iter().zip(image.layers(self.options.ignore_chown)) {
            let name = match layer_names.find(|name| self.open(name), beneath.first())? {
                Some(name) => name,
                None => self.place(layer_names, &layer, &beneath)?,
            };
            let fd = self.open(&name)?;
            beneath.insert(0, fd.ok_or_else(|| Error::new("a layer has gone from the store"))?);
            names.push(name);
        }
        if names.is_empty() {
            names.push(self.empty_layer()?);
        }
        Ok(ImageEntry {
            reference: resolved.name.clone(),
            platform: resolved.config.platform.to_string(),
            target: resolved.target.clone(),
            manifest: resolved.manifest_digest.clone(),
            config: resolved.manifest.config.digest.clone(),
            layers: names,
        })
    }

    /// Gives a layer what it takes from those beneath it; its name.
    fn place(&mut self, names: &LayerNames, layer: &Layer, beneath: &[OwnedFd]) -> Result<String> {
        let (mut place, mut fetched) = match self.fetched.remove(&layer.diff_id) {
            Some(fetched) => fetched,
            // It needs what is beneath; or it looked present, and does not fit here.
            None => self.fetch_upon(layer, beneath)?,
        };
        if !settle(&fetched.root, &fetched.implied, beneath)? {
            (place, fetched) = self.fetch_upon(layer, beneath)?;
            settle(&fetched.root, &fetched.implied, beneath)?;
        }
        let name = names.settled(&fetched, beneath.first())?.to_owned();
        self.ready.insert(name.clone(), Ready { place, root: fetched.root });
        Ok(name)
    }

    fn fetch_upon(&mut self, layer: &Layer, beneath: &[OwnedFd]) -> Result<(usize, Fetched)> {
        layer.cancel.check().op("fetch layer")?;
        self.may_fetch(layer)?;
        self.progress.expect(layer.blob.size);
        let (place, root, sums) = self.make_place(&layer.blob)?;
        let allowance = self.options.allowance;
        let writeback = self.writeback.as_ref();
        let fetched =
            fetch_one(layer, root, sums, Some(beneath), allowance, writeback, self.progress)?;
        let none = || Error::new("a layer without those beneath it");
        Ok((place, fetched.ok_or_else(none)?))
    }

    fn empty_layer(&mut self) -> Result<String> {
        let names = LayerNames::of(&[Digest::of(&EMPTY_TAR)], self.options.ignore_chown);
        let name = names.into_iter().next().map(|names| names.alone).unwrap_or_default();
        if self.open(&name)?.is_none() {
            let blob = Descriptor::of(&EMPTY_TAR);
            let (place, root, sums) = self.make_place(&blob)?;
            let copy = root.try_clone().op("dup")?;
            unpack(
                &mut Reader::new(EMPTY_TAR.as_slice()),
                copy,
                Some(&[]),
                self.options.allowance,
                false,
                sums,
            )?;
            self.ready.insert(name.clone(), Ready { place, root });
        }
        Ok(name)
    }

    /// `false` if layers have vanished that were there before.
    fn publish(&mut self, entries: &[ImageEntry]) -> Result<bool> {
        let mut images: Vec<ImageEntry> = entries
            .iter()
            .filter(|e| !self.store.image(&e.key()).is_ok_and(|known| known.as_ref() == Some(e)))
            .cloned()
            .collect();
        // One may be named twice.
        images.sort_by_key(ImageEntry::key);
        images.dedup_by_key(|image| image.key());
        let wanted: BTreeSet<&String> = entries.iter().flat_map(|entry| &entry.layers).collect();
        let ready = self.ready.iter().filter(|(name, _)| wanted.contains(name));
        let layers: Vec<_> = ready.map(|(name, ready)| (ready.place, name.clone())).collect();
        let new = self.images.iter().zip(entries).flat_map(|(i, _)| &i.resolved.new_blobs);
        let new: BTreeMap<&Digest, &Vec<u8>> = new.map(|(digest, bytes)| (digest, bytes)).collect();
        if images.is_empty() && layers.is_empty() && new.is_empty() {
            return Ok(wanted.iter().all(|name| matches!(self.store.layer(name), Ok(Some(_)))));
        }
        let work = self.work()?;
        for (digest, bytes) in &new {
            work.add_blob(digest, bytes)?;
        }
        let blobs: Vec<Digest> = new.into_keys().cloned().collect();
        let what = Publish { layers: &layers, blobs: &blobs, images: &images };
        let no_sync = self.options.no_sync;
        let done = self.work()?.publish(&what, no_sync)?;
        self.ready.retain(|name, _| !layers.iter().any(|(_, published)| published == name));
        Ok(done)
    }

    fn record(&self, image: &Image, entry: &ImageEntry) -> Result<Record> {
        Ok(Record {
            jc: record::VERSION,
            reference: Some(entry.reference.clone()),
            digest: Some(entry.manifest.to_string()),
            platform: Some(entry.platform.clone()),
            layers: Some(self.visible(&entry.layers)?),
            rootfs: None,
            config: image.resolved.config.config.clone(),
        })
    }

    /// The directories of the layers that show: of a layer that comes twice only the upper one
    /// does, as it sets the same again, and overlayfs takes no directory twice; and of those beneath
    /// an opaque root nothing does.
    fn visible(&self, names: &[String]) -> Result<Vec<PathBuf>> {
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

    /// A layer that is ready, or in the store.
    fn open(&self, name: &str) -> Result<Option<OwnedFd>> {
        match self.ready.get(name) {
            Some(ready) => ready.root.try_clone().op("dup").map(Some),
            None => self.store.layer(name),
        }
    }

    fn may_fetch(&self, layer: &Layer) -> Result<()> {
        if self.options.policy == Policy::Never {
            let digest = &layer.blob.digest;
            return Err(Error::new(format_args!("layer {digest} is not in the store"))
                .hint("jc-pull --policy missing, or jc-run --pull missing, fetches it"));
        }
        Ok(())
    }

    fn work(&mut self) -> Result<&Work<'_>> {
        if self.work.is_none() {
            let work = self.store.work()?;
            if !self.options.no_sync {
                let own = sys::open_dir(work.fd(), b".").op("open work directory")?;
                self.writeback = Some(Writeback::new(own));
            }
            self.work = Some(work);
        }
        self.work.as_ref().ok_or_else(|| Error::new("no work directory"))
    }

    fn make_place(&mut self, blob: &Descriptor) -> Result<(usize, OwnedFd, Sums)> {
        // An ordinary user can neither give files away nor write where an image's modes forbid it.
        if !rustix::process::geteuid().is_root() {
            return Err(
                Error::new("cannot unpack layers as an ordinary user").hint(sys::OWNERS_HINT)
            );
        }
        let place = self.places;
        self.places += 1;
        let work = self.work()?;
        Ok((place, work.make_layer(place)?, work.make_sums(place, blob)?))
    }
}

impl Image {
    fn layers(&self, ignore_chown: bool) -> impl Iterator<Item = Layer> {
        let blobs = self.resolved.manifest.layers.iter();
        blobs.zip(self.resolved.config.diff_ids()).map(move |(blob, diff_id)| Layer {
            source: Arc::clone(&self.source),
            blob: blob.clone(),
            diff_id: diff_id.clone(),
            cancel: self.cancel.clone(),
            ignore_chown,
        })
    }
}

fn fetch_one(
    layer: &Layer,
    root: OwnedFd,
    sums: Sums,
    beneath: Option<&[OwnedFd]>,
    allowance: Allowance,
    writeback: Option<&Writeback>,
    progress: &Arc<Progress>,
) -> Result<Option<Fetched>> {
    let progress = progress.layer(layer.blob.digest.short(), layer.blob.size);
    let fetched = fetch(layer, root, sums, beneath, allowance, writeback, &progress)?;
    if fetched.is_some() {
        progress.done();
    }
    Ok(fetched)
}
