//! An OCI image layout in a tar archive as a destination.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use jc_unshare::Result;

use super::archive::Archive;
use super::index::{MARKER, blob_path, with_entry};
use super::{Document, Image, Outgoing, Sink, Written};
use crate::digest::Digest;
use crate::parallel::lock;
use jc_unshare::image::Transport;

pub struct OciArchive {
    path: PathBuf,
    tag: Option<String>,
    no_sync: bool,
    state: Mutex<State>,
}

struct State {
    /// Absent after the end.
    archive: Option<Archive>,
    /// The blobs in the archive, and their sizes.
    blobs: BTreeMap<Digest, u64>,
    /// The document for the index.
    top: Option<Document>,
}

impl OciArchive {
    /// Starts an archive that takes the place of `path` when it is complete.
    pub fn create(path: &Path, tag: Option<String>, scratch: &Path, no_sync: bool) -> Result<Self> {
        let mut archive = Archive::create(path, scratch)?;
        archive.add("oci-layout", MARKER)?;
        let state = State { archive: Some(archive), blobs: BTreeMap::new(), top: None };
        Ok(Self { path: path.to_owned(), tag, no_sync, state: Mutex::new(state) })
    }

    fn put_document(&self, document: Document, named: bool) -> Result<()> {
        let mut state = lock(&self.state);
        if !state.blobs.contains_key(&document.digest) {
            let name = blob_path(&document.digest);
            if let Some(archive) = &mut state.archive {
                archive.add(&name, &document.bytes)?;
            }
            state.blobs.insert(document.digest.clone(), document.bytes.len() as u64);
        }
        if named {
            state.top = Some(document);
        }
        Ok(())
    }
}

impl Sink for OciArchive {
    fn name(&self) -> String {
        Transport::OciArchive.image(&self.path, self.tag.as_deref())
    }

    fn jobs(&self) -> usize {
        1
    }

    fn has(&self, blob: &Written) -> Result<bool> {
        Ok(lock(&self.state).blobs.get(&blob.digest) == Some(&blob.size))
    }

    fn put(&self, blob: &Outgoing<'_>) -> Result<Written> {
        let mut state = lock(&self.state);
        let Some(archive) = &mut state.archive else { return Err(super::ended(&self.path)) };
        let written = archive.blob(blob, |written| blob_path(&written.digest))?;
        state.blobs.insert(written.digest.clone(), written.size);
        Ok(written)
    }

    fn put_image(&self, image: Image, named: bool) -> Result<()> {
        self.put_document(image.manifest, named)
    }

    fn put_index(&self, index: Document) -> Result<()> {
        self.put_document(index, true)
    }

    fn finish(&self) -> Result<()> {
        let mut state = lock(&self.state);
        let (Some(document), Some(mut archive)) = (state.top.take(), state.archive.take()) else {
            return Ok(());
        };
        let index = with_entry(None, &document, self.tag.as_deref())?;
        archive.add("index.json", &index)?;
        archive.finish(self.no_sync)
    }
}
