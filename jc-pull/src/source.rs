//! Where images come from. A source hands out bytes; whoever asks verifies them.

mod archive;
mod blob;
mod docker_archive;
mod layout;
mod refusal;
mod registry;

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use jc_unshare::Result;

use crate::cancel::Cancel;
use crate::credentials::Credentials;
use crate::digest::Digest;
use crate::http::Transport;
use crate::limits::Allowance;
use crate::manifest::Descriptor;
use crate::name::Name;
use crate::registries::Registries;

use archive::Spool;
pub use blob::Blob;
pub use docker_archive::DockerArchive;
pub use layout::Layout;
pub use registry::Registry;

/// A document as it came, not verified yet.
pub struct Raw {
    /// The content, no longer than [`crate::manifest::MAX_DOCUMENT`].
    pub bytes: Vec<u8>,
    /// The media type that came with it.
    pub media_type: Option<String>,
}

/// One image in one place.
pub trait Source: Send + Sync {
    /// The image's full name, for the record.
    fn name(&self) -> String;

    /// The digest that the name stands for now, if that can be found out without the document.
    fn current(&self) -> Result<Option<Digest>>;

    /// What the name itself stands for, an index or a manifest; or the document of that digest.
    fn document(&self, digest: Option<&Digest>) -> Result<Raw>;

    /// A configuration or a layer.
    fn blob(self: Arc<Self>, blob: &Descriptor, cancel: &Cancel) -> Result<Box<dyn Read + Send>>;
}

/// What sources are opened with.
pub struct Opener {
    /// How requests are made.
    pub http: Arc<Transport>,
    /// Who one is.
    pub credentials: Arc<Credentials>,
    /// Where registries are.
    pub registries: Registries,
    /// Whether plain http and unknown certificates will do for every registry.
    pub insecure: bool,
    /// The bytes that a copy of an archive may have.
    pub allowance: Allowance,
}

impl Opener {
    /// Opens the place that the name speaks of. `scratch` is a directory for what has to be kept
    /// for a while.
    pub fn open(&self, name: &Name, scratch: &Path, cancel: &Cancel) -> Result<Arc<dyn Source>> {
        match name {
            Name::Registry(reference) => Ok(Arc::new(Registry::new(
                reference.clone(),
                Arc::clone(&self.http),
                Arc::clone(&self.credentials),
                &self.registries,
                self.insecure,
                cancel.clone(),
            )?)),
            Name::OciDir { directory, tag } => {
                Ok(Arc::new(Layout::open(directory, tag.as_deref())?))
            }
            Name::OciArchive { file, tag } => {
                Ok(Arc::new(Layout::open_archive(file, tag.as_deref(), self.spool(scratch))?))
            }
            Name::DockerArchive { file, tag } => {
                Ok(Arc::new(DockerArchive::open(file, tag.as_deref(), self.spool(scratch))?))
            }
        }
    }

    fn spool<'a>(&self, directory: &'a Path) -> Spool<'a> {
        Spool { directory, allowance: self.allowance }
    }
}
