//! Destinations of images. A destination checks the bytes that it takes, and shows an image after all its blobs.

mod answer;
mod archive;
mod blobs;
mod docker_archive;
mod index;
mod layout;
mod oci_archive;
mod opener;
mod registry;
mod upload;

use std::io::Read;
use std::path::Path;

use jc_unshare::{Error, Result};
use serde_json::{Value, json};

use crate::digest::Digest;
use jc_unshare::image::Platform;

pub use answer::{next_url, received};
pub use opener::SinkOpener;

/// The form in which a destination takes layers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// Blobs as the manifest lists them.
    Blob,
    /// Uncompressed tars, named by their diff-ids.
    Tar,
}

/// Opens the bytes of a blob, from the first one.
pub type Open<'a> = &'a (dyn Fn() -> Result<Box<dyn Read + Send>> + Sync);

/// A blob on its way to a destination.
pub struct Outgoing<'a> {
    /// The digest that the blob must have, if it is known.
    pub digest: Option<Digest>,
    /// The size that the blob must have, if it is known.
    pub size: Option<u64>,
    /// A repository of the same registry that has the blob.
    pub mount_from: Option<String>,
    /// A destination that loses an upload opens the bytes again.
    pub open: Open<'a>,
}

/// The digest and the size of a blob that a destination has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Written {
    pub digest: Digest,
    pub size: u64,
}

/// A manifest or an index.
pub struct Document {
    pub bytes: Vec<u8>,
    pub media_type: String,
    pub digest: Digest,
    /// The platform of an image.
    pub platform: Option<Platform>,
}

impl Document {
    /// The descriptor of the document, for an index.
    pub fn descriptor(&self) -> Value {
        let (media_type, digest, size) = (&self.media_type, &self.digest, self.bytes.len());
        let mut descriptor = json!({"mediaType": media_type, "digest": digest, "size": size});
        if let Some(platform) = &self.platform {
            descriptor["platform"] = json!(platform);
        }
        descriptor
    }
}

/// An image whose blobs the destination has.
pub struct Image {
    pub manifest: Document,
    pub config: Vec<u8>,
    /// The digests of the tars, the lowest first.
    pub diff_ids: Vec<Digest>,
}

/// A place for images.
pub trait Sink: Send + Sync {
    /// The full name of the destination.
    fn name(&self) -> String;

    /// The host and port of a registry, if the destination is in one.
    fn authority(&self) -> Option<&str> {
        None
    }

    fn form(&self) -> Form {
        Form::Blob
    }

    /// The most blobs that the destination takes at once.
    fn jobs(&self) -> usize {
        usize::MAX
    }

    /// Whether the destination has a blob of this digest and size.
    fn has(&self, blob: &Written) -> Result<bool>;

    /// Writes a blob. Another digest or size than the expected ones is an error, and the destination shows
    /// no blob then.
    fn put(&self, blob: &Outgoing<'_>) -> Result<Written>;

    /// Writes the manifest of an image whose layers and configuration have been written. A `named` image gets
    /// the name of the destination, another one is part of an index.
    fn put_image(&self, image: Image, named: bool) -> Result<()>;

    /// Writes an index under the name of the destination.
    fn put_index(&self, _: Document) -> Result<()> {
        Err(Error::usage(format_args!("{}: an archive of docker save has no index", self.name())))
    }

    /// Completes the destination, and checks that it has what was written.
    fn finish(&self) -> Result<()>;
}

/// The error of a write to an archive that is complete.
fn ended(path: &Path) -> Error {
    Error::new(format_args!("{}: the archive is complete", path.display()))
}
