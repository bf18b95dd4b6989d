//! Images, from their sources into the store.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::io::BufReader;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use jc_unshare::record::Record;
use jc_unshare::{Context, Error, Result};

use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::inherit::inherit;
use crate::layer_names::LayerNames;
use crate::limits::Allowance;
use crate::manifest::Descriptor;
use crate::parallel::{lock, parallel};
use crate::progress::Progress;
use crate::record_line::record;
use crate::resolve::{Policy, Resolved};
use crate::source::Source;
use crate::staging::{StagedLayer, Staging};
use crate::store::{Claims, ImageEntry, Publication, Store};
use crate::stream::{Fetched, Layer, fetch};
use crate::sums;
use crate::tar::Reader;
use crate::unpack::{Destination, Lower, unpack};
use crate::writeback::Writeback;

/// The tar of an empty layer, which stands for the layers of an image without any.
const EMPTY_TAR: [u8; 1024] = [0; 1024];
/// The attempts at a pull whose layers another process removes meanwhile.
const ATTEMPTS: usize = 10;
/// The error after the last attempt.
const REMOVED: &str = "layers are removed from the store as fast as they come";

/// The options of a pull.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The most layers that are fetched at a time.
    pub jobs: usize,
    /// The limits of one layer.
    pub allowance: Allowance,
    pub policy: Policy,
    /// Whether the kernel decides when data reaches the disk.
    pub no_sync: bool,
    /// Whether root owns all files, in place of the owners in the layers.
    pub ignore_chown: bool,
}

/// An image with its manifest and configuration.
pub struct Image {
    pub source: Arc<dyn Source>,
    pub resolved: Resolved,
    pub cancel: Cancel,
}

/// Pulls images. Returns the records of the images in front of the first one that fails, and the error of
/// that image.
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
        staging: Staging::new(store, options.no_sync),
        fetched: BTreeMap::new(),
        ready: BTreeMap::new(),
        errors: BTreeMap::new(),
    };
    match batch.run() {
        Ok(outcome) => outcome,
        Err(error) => (Vec::new(), Err(error)),
    }
}

/// The images of one command line. Several may have the same layer, which is fetched once.
struct Batch<'a> {
    store: &'a Store,
    images: &'a [Image],
    options: Options,
    progress: &'a Arc<Progress>,
    staging: Staging<'a>,
    /// Unpacked layers by diff-id, with their numbers in the work directory.
    fetched: BTreeMap<Digest, (usize, Fetched)>,
    /// Layers that are complete, by their names in the store.
    ready: BTreeMap<String, Ready>,
    /// The errors of images, by their place on the command line.
    errors: BTreeMap<usize, Error>,
}

/// A complete layer in the work directory.
struct Ready {
    number: usize,
    root: OwnedFd,
}

/// A layer to fetch, its name in the store by diff-id, and the place of its image on the command line.
struct Job {
    image: usize,
    layer: Layer,
    name: String,
    is_lowest: bool,
}

/// The parts of a batch that several threads use.
struct Fetcher {
    options: Options,
    progress: Arc<Progress>,
    writeback: Option<Writeback>,
}

impl<'a> Batch<'a> {
    fn run(&mut self) -> Result<(Vec<Record>, Result<()>)> {
        // The claims end behind the publication.
        let _claims = self.fetch_claimed()?;
        for _ in 0..ATTEMPTS {
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
                let records =
                    records.map(|(i, entry)| record(self.store, &i.resolved.config, entry));
                return Ok((records.collect::<Result<_>>()?, outcome));
            }
            let jobs = self.missing_layers()?;
            self.fetch_all(jobs)?;
        }
        Err(Error::new(REMOVED))
    }

    /// Fetches the layers that no other process fetches, waits for the others, and fetches those that a process left.
    fn fetch_claimed(&mut self) -> Result<Option<Claims<'a>>> {
        let jobs = self.missing_layers()?;
        let Some(first) = jobs.first() else { return Ok(None) };
        let cancel = first.layer.cancel.clone();
        self.staging.work()?;
        let mut claims = self.store.claim(jobs.into_iter().map(|job| job.name))?;
        // Another process may have published a layer before the claim.
        let mut jobs = self.missing_layers()?;
        jobs.retain(|job| !claims.others().contains_key(&job.name));
        self.fetch_all(jobs)?;
        if !claims.others().is_empty() {
            self.progress.wait(claims.others().len());
            let left = claims.wait(&cancel);
            let mut jobs = self.missing_layers()?;
            jobs.retain(|job| left.contains(&job.name));
            self.fetch_all(jobs)?;
        }
        Ok(Some(claims))
    }

    /// The layers of all images that neither the store nor the work directory has.
    fn missing_layers(&mut self) -> Result<Vec<Job>> {
        let mut jobs = Vec::new();
        let mut known = BTreeSet::new();
        for (number, image) in self.images.iter().enumerate() {
            for (at, (names, layer)) in self.layers(image).enumerate() {
                let is_present = self.open(&names.by_diff_id)?.is_some()
                    || self.open(&names.by_chain_id)?.is_some();
                if is_present && let Err(error) = self.check_size(&names, &layer, &image.resolved) {
                    self.errors.entry(number).or_insert(error);
                }
                let is_fetched = self.fetched.contains_key(&layer.diff_id);
                if !is_present && !is_fetched && known.insert(layer.diff_id.clone()) {
                    self.check_fetch(&layer)?;
                    let name = names.by_diff_id;
                    jobs.push(Job { image: number, layer, name, is_lowest: at == 0 });
                }
            }
        }
        // A large layer at the end would leave other cores idle: its files are made one after the other.
        jobs.sort_by_key(|job| Reverse(job.layer.blob.size));
        Ok(jobs)
    }

    /// Fetches layers, several at a time. The error of a layer becomes the error of its image.
    fn fetch_all(&mut self, jobs: Vec<Job>) -> Result<()> {
        let staged = jobs.into_iter().map(|job| Ok((self.stage(&job.layer)?, job)));
        let jobs: Vec<(StagedLayer, Job)> = staged.collect::<Result<_>>()?;
        let fetcher = self.fetcher();
        let results = Mutex::new((&mut self.fetched, &mut self.errors));
        parallel(self.options.jobs, jobs, |(staged, Job { image, layer, is_lowest, .. })| {
            if layer.cancel.is_given_up() {
                return;
            }
            let lower = if is_lowest { Lower::Known(&[]) } else { Lower::Unknown };
            let outcome = fetcher.fetch(&layer, staged, lower);
            let mut results = lock(&results);
            match outcome {
                Ok(Some(fetched)) => drop(results.0.insert(layer.diff_id, fetched)),
                Ok(None) => {}
                // The error of another layer is the cause of this one.
                Err(_) if layer.cancel.is_given_up() => {}
                Err(error) => {
                    results.1.insert(image, error);
                    layer.cancel.give_up();
                }
            }
        });
        Ok(())
    }

    /// Compares the sizes of a blob in a new manifest and in the sums of a layer in the store, which is not
    /// fetched again.
    fn check_size(&self, names: &LayerNames, layer: &Layer, resolved: &Resolved) -> Result<()> {
        for name in [&names.by_diff_id, &names.by_chain_id].into_iter().filter(|_| resolved.is_new)
        {
            let Some(sums) = self.store.sums(name)? else { continue };
            let known = sums::LayerSums::read_blob(&mut BufReader::new(sums)).op("read sums")?;
            let Descriptor { digest, size, .. } = &layer.blob;
            if known.blob == *digest && known.blob_size != *size {
                let found = known.blob_size;
                return Err(Error::new(format_args!("layer {digest}: {found} bytes, not {size}")));
            }
        }
        Ok(())
    }

    /// Completes the layers of an image, from the lowest up. Returns the image's entry for the store.
    fn assemble(&mut self, number: usize, image: &Image) -> Result<ImageEntry> {
        if let Some(error) = self.errors.remove(&number) {
            return Err(error);
        }
        for _ in 0..ATTEMPTS {
            if let Some(layers) = self.layer_names(image)? {
                return Ok(image.resolved.entry(self.store, layers));
            }
        }
        Err(Error::new(REMOVED))
    }

    /// The names of the complete layers of an image, from the lowest up. The result is `None` if a layer of the store
    /// has been removed while a layer upon it took parts from it.
    fn layer_names(&mut self, image: &Image) -> Result<Option<Vec<String>>> {
        let mut layers = Vec::<String>::new();
        let mut lower = Vec::<OwnedFd>::new();
        for (names, layer) in self.layers(image) {
            let found = names.find(|name| self.open(name), lower.first())?;
            let (name, root) = match found {
                Some(found) => found,
                None => {
                    let completed = self.complete(&names, &layer, &lower);
                    // A removal moves a layer away before it removes the files.
                    if !self.has_all(layers.iter().rev().zip(&lower))? {
                        if let Ok((name, _)) = completed {
                            self.ready.remove(&name);
                        }
                        return Ok(None);
                    }
                    completed?
                }
            };
            lower.insert(0, root);
            layers.push(name);
        }
        if layers.is_empty() {
            layers.push(self.empty_layer()?);
        }
        Ok(Some(layers))
    }

    /// Whether the names of open layers still lead to them.
    fn has_all<'l>(
        &self,
        mut layers: impl Iterator<Item = (&'l String, &'l OwnedFd)>,
    ) -> Result<bool> {
        layers.try_fold(true, |all, (name, root)| {
            Ok(all && (self.ready.contains_key(name) || self.store.has_layer(name, root)?))
        })
    }

    /// Gives a layer the parts that it takes from the lower layers. Returns the layer and its name.
    fn complete(
        &mut self,
        names: &LayerNames,
        layer: &Layer,
        lower: &[OwnedFd],
    ) -> Result<(String, OwnedFd)> {
        let (mut number, mut fetched) = match self.fetched.remove(&layer.diff_id) {
            Some(fetched) => fetched,
            // The layer needs lower layers, or the one in the store does not fit on these.
            None => self.fetch_upon(layer, lower)?,
        };
        if !inherit(&fetched.root, &fetched.implied, lower)? {
            (number, fetched) = self.fetch_upon(layer, lower)?;
            inherit(&fetched.root, &fetched.implied, lower)?;
        }
        let name = names.choose(&fetched, lower.first())?.to_owned();
        let root = fetched.root.try_clone().op("dup")?;
        self.ready.insert(name.clone(), Ready { number, root: fetched.root });
        Ok((name, root))
    }

    /// Fetches a layer whose lower layers are complete.
    fn fetch_upon(&mut self, layer: &Layer, lower: &[OwnedFd]) -> Result<(usize, Fetched)> {
        layer.cancel.check().op("fetch layer")?;
        let staged = self.stage(layer)?;
        let fetched = self.fetcher().fetch(layer, staged, Lower::Known(lower))?;
        fetched.ok_or_else(|| Error::new("a layer without its lower layers"))
    }

    fn empty_layer(&mut self) -> Result<String> {
        let names = LayerNames::of(&[Digest::of(&EMPTY_TAR)], self.options.ignore_chown);
        let name = names.into_iter().next().map(|names| names.by_diff_id).unwrap_or_default();
        if self.open(&name)?.is_none() {
            let StagedLayer { number, root, sums } =
                self.staging.make_layer(&Descriptor::of(&EMPTY_TAR))?;
            let destination = Destination {
                root: root.try_clone().op("dup")?,
                sums,
                lower: Lower::Known(&[]),
                allowance: self.options.allowance,
                ignore_chown: false,
            };
            unpack(&mut Reader::new(EMPTY_TAR.as_slice()), destination)?;
            self.ready.insert(name.clone(), Ready { number, root });
        }
        Ok(name)
    }

    /// Makes layers, documents and images visible. `false` if layers or documents of the store have been
    /// removed meanwhile.
    fn publish(&mut self, entries: &[ImageEntry]) -> Result<bool> {
        let replaces = |(image, entry): &(&Image, &ImageEntry)| {
            // A malformed entry is replaced.
            let now = self.store.image(&entry.key()).ok().flatten();
            image.resolved.replaces(now.as_ref(), entry)
        };
        let written = self.images.iter().zip(entries).filter(replaces);
        let mut images: Vec<ImageEntry> = written.map(|(_, entry)| entry.clone()).collect();
        // A command line may name an image twice.
        images.sort_by_key(ImageEntry::key);
        images.dedup_by_key(|image| image.key());
        let used: BTreeSet<&String> = entries.iter().flat_map(|entry| &entry.layers).collect();
        let ready = self.ready.iter().filter(|(name, _)| used.contains(name));
        let layers: Vec<_> = ready.map(|(name, ready)| (ready.number, name.clone())).collect();
        let whole = self.images.iter().zip(entries);
        let new: BTreeMap<&Digest, &Vec<u8>> =
            whole.flat_map(|(image, _)| image.resolved.missing_documents(self.store)).collect();
        if images.is_empty() && layers.is_empty() && new.is_empty() {
            return Ok(used.iter().all(|name| matches!(self.store.layer(name), Ok(Some(_)))));
        }
        let work = self.staging.work()?;
        for (digest, bytes) in &new {
            work.add_blob(digest, bytes)?;
        }
        let blobs: Vec<Digest> = new.into_keys().cloned().collect();
        let publication = Publication { layers: &layers, blobs: &blobs, images: &images };
        let is_complete = work.publish(&publication, self.options.no_sync)?;
        self.ready.retain(|name, _| !layers.iter().any(|(_, published)| published == name));
        Ok(is_complete)
    }

    /// The layers of an image with their names, the lowest first.
    fn layers<'i>(&self, image: &'i Image) -> impl Iterator<Item = (LayerNames, Layer)> + use<'i> {
        let diff_ids = image.resolved.config.diff_ids();
        let names = LayerNames::of(diff_ids, self.options.ignore_chown);
        let layers = image.resolved.manifest.layers.iter().zip(diff_ids);
        names.into_iter().zip(layers).map(|(names, (blob, diff_id))| {
            let (source, cancel) = (Arc::clone(&image.source), image.cancel.clone());
            (names, Layer { source, blob: blob.clone(), diff_id: diff_id.clone(), cancel })
        })
    }

    /// Opens a layer of the work directory or of the store.
    fn open(&self, name: &str) -> Result<Option<OwnedFd>> {
        match self.ready.get(name) {
            Some(ready) => ready.root.try_clone().op("dup").map(Some),
            None => self.store.layer(name),
        }
    }

    /// An error if the policy or the user of this process does not allow to fetch a layer.
    fn check_fetch(&self, layer: &Layer) -> Result<()> {
        if self.options.policy == Policy::Never {
            let digest = &layer.blob.digest;
            return Err(Error::new(format_args!("layer {digest} is not in the store"))
                .hint("jc-pull --policy missing, or jc-run --pull missing, fetches it"));
        }
        Staging::check_user()
    }

    /// Makes the directories of a layer that is about to be fetched.
    fn stage(&mut self, layer: &Layer) -> Result<StagedLayer> {
        self.check_fetch(layer)?;
        let staged = self.staging.make_layer(&layer.blob)?;
        self.progress.expect(layer.blob.size);
        Ok(staged)
    }

    fn fetcher(&self) -> Fetcher {
        let (options, progress) = (self.options, Arc::clone(self.progress));
        Fetcher { options, progress, writeback: self.staging.writeback() }
    }
}

impl Fetcher {
    /// The result is `None` if the layer cannot be unpacked while its lower layers are unknown.
    fn fetch(
        &self,
        layer: &Layer,
        staged: StagedLayer,
        lower: Lower<'_>,
    ) -> Result<Option<(usize, Fetched)>> {
        let StagedLayer { number, root, sums } = staged;
        let Options { allowance, ignore_chown, .. } = self.options;
        let progress = self.progress.layer(layer.blob.digest.short(), layer.blob.size);
        let destination = Destination { root, sums, lower, allowance, ignore_chown };
        let fetched = fetch(layer, destination, self.writeback.clone(), &progress)?;
        if fetched.is_some() {
            progress.done();
        }
        Ok(fetched.map(|fetched| (number, fetched)))
    }
}
