//! An archive as `docker save` writes it as a destination (`docker-archive` in containers-transports(5)).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use jc_unshare::Result;
use serde_json::{Value, json};

use super::archive::Archive;
use super::{Form, Image, Outgoing, Sink, Written};
use crate::digest::Digest;
use crate::parallel::lock;
use jc_unshare::image::{Reference, Transport};

pub struct DockerArchive {
    path: PathBuf,
    /// The name of the image in the archive.
    reference: Option<Reference>,
    no_sync: bool,
    state: Mutex<State>,
}

struct State {
    /// Absent after the end.
    archive: Option<Archive>,
    layers: BTreeSet<Digest>,
    /// The entries of `manifest.json`.
    images: Vec<Value>,
}

impl DockerArchive {
    /// Starts an archive that takes the place of `path` when it is complete. A name that no registry can have
    /// is a usage error.
    pub fn create(
        path: &Path,
        reference: Option<&str>,
        scratch: &Path,
        no_sync: bool,
    ) -> Result<Self> {
        let reference = reference.map(Reference::parse).transpose()?;
        let archive = Some(Archive::create(path, scratch)?);
        let state = State { archive, layers: BTreeSet::new(), images: Vec::new() };
        Ok(Self { path: path.to_owned(), reference, no_sync, state: Mutex::new(state) })
    }
}

/// The name of a layer in the archive.
fn layer_name(diff_id: &Digest) -> String {
    format!("{}.tar", diff_id.hex())
}

impl Sink for DockerArchive {
    fn name(&self) -> String {
        let reference = self.reference.as_ref().map(ToString::to_string);
        Transport::DockerArchive.image(&self.path, reference.as_deref())
    }

    fn form(&self) -> Form {
        Form::Tar
    }

    fn jobs(&self) -> usize {
        1
    }

    fn has(&self, blob: &Written) -> Result<bool> {
        Ok(lock(&self.state).layers.contains(&blob.digest))
    }

    fn put(&self, blob: &Outgoing<'_>) -> Result<Written> {
        let mut state = lock(&self.state);
        let Some(archive) = &mut state.archive else { return Err(super::ended(&self.path)) };
        let written = archive.blob(blob, |written| layer_name(&written.digest))?;
        state.layers.insert(written.digest.clone());
        Ok(written)
    }

    fn put_image(&self, image: Image, _: bool) -> Result<()> {
        let mut state = lock(&self.state);
        let Some(archive) = &mut state.archive else { return Err(super::ended(&self.path)) };
        let config = format!("{}.json", Digest::of(&image.config).hex());
        archive.add(&config, &image.config)?;
        let tags = self.reference.as_ref().map(|reference| vec![reference.to_string()]);
        let layers: Vec<String> = image.diff_ids.iter().map(layer_name).collect();
        state.images.push(json!({"Config": config, "RepoTags": tags, "Layers": layers}));
        Ok(())
    }

    fn finish(&self) -> Result<()> {
        let mut state = lock(&self.state);
        let Some(mut archive) = state.archive.take() else { return Ok(()) };
        let manifest = json!(state.images).to_string();
        archive.add("manifest.json", manifest.as_bytes())?;
        archive.finish(self.no_sync)
    }
}
