//! Where images come from. A source hands out bytes; whoever asks verifies them.

mod layout;
mod registry;

use std::io::Read;

use jc_unshare::Result;

use crate::http::Transport;
use crate::manifest::Descriptor;
use crate::name::Name;

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
pub trait Source: Sync {
    /// The image's full name, for the record.
    fn name(&self) -> String;

    /// What the name itself stands for: an index or a manifest.
    fn top(&self) -> Result<(Raw, Option<crate::digest::Digest>)>;

    /// An index's manifest.
    fn manifest(&self, descriptor: &Descriptor) -> Result<Raw>;

    /// A configuration or a layer.
    fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>>;
}

/// Opens the place that the name speaks of.
pub fn open<'a>(name: &Name, http: &'a Transport) -> Result<Box<dyn Source + 'a>> {
    match name {
        Name::Registry(reference) => Ok(Box::new(Registry::new(reference.clone(), http))),
        Name::OciDir { directory, tag } => Ok(Box::new(Layout::open(directory, tag.as_deref())?)),
    }
}
