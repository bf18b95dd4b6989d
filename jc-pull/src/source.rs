//! Sources of images. A source returns bytes that its caller verifies.

mod archive;
mod blob;
mod docker_archive;
pub mod endpoint;
mod layout;
mod opener;
mod refusal;
mod registry;

use std::io::Read;
use std::sync::Arc;

use jc_unshare::Result;

use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::manifest::Descriptor;

pub use archive::unnamed_file;
pub use opener::Opener;
pub use registry::content_digest;

/// A document that is not verified yet.
pub struct RawDocument {
    /// The content, no longer than [`crate::manifest::MAX_DOCUMENT`].
    pub bytes: Vec<u8>,
    /// The media type in the answer or in the descriptor.
    pub media_type: Option<String>,
}

/// An image in a registry, a layout or an archive.
pub trait Source: Send + Sync {
    /// The full name of the image.
    fn name(&self) -> String;

    /// The present digest of the name, if the source has it without the document.
    fn current(&self) -> Result<Option<Digest>>;

    /// The document of a digest, or the present index or manifest of the name.
    fn document(&self, digest: Option<&Digest>) -> Result<RawDocument>;

    /// Opens a configuration or a layer.
    fn blob(self: Arc<Self>, blob: &Descriptor, cancel: &Cancel) -> Result<Box<dyn Read + Send>>;
}
