//! From a name to its destination.

use std::path::PathBuf;
use std::sync::Arc;

use jc_unshare::{Error, Result};

use super::Sink;
use super::docker_archive::DockerArchive;
use super::layout::Layout;
use super::oci_archive::OciArchive;
use super::registry::Registry;
use crate::cancel::Cancel;
use crate::credentials::Credentials;
use crate::http::Http;
use crate::source::endpoint::Context;
use jc_unshare::image::registries::Registries;
use jc_unshare::image::{Name, Transport};

/// The means to open destinations.
pub struct SinkOpener<'a> {
    pub http: Arc<Http>,
    pub credentials: Arc<Credentials>,
    pub registries: &'a Registries,
    /// Whether plain http and unknown certificates are allowed for every registry.
    pub insecure: bool,
    /// The directory for copies of archives.
    pub scratch: PathBuf,
    /// Whether the kernel decides when data reaches the disk.
    pub no_sync: bool,
    /// The registries and repositories from which the images have come.
    pub origins: Vec<(String, String)>,
}

impl SinkOpener<'_> {
    /// Opens a destination. Errors are those of files and archives, and of a registry that the configuration
    /// blocks. A digest in the name is a usage error.
    pub fn open(&self, name: &Name, cancel: &Cancel) -> Result<Arc<dyn Sink>> {
        let (transport, path, tag) = match name {
            Name::Registry(reference) if reference.digest.is_some() => {
                return Err(Error::usage(format_args!("{reference}: a destination has no digest")));
            }
            Name::Registry(reference) => {
                let locations = self.registries.locate(reference, self.insecure)?;
                // The registry itself is the last.
                let location = locations.into_iter().rfind(|location| !location.mirror);
                let absent = || Error::new(format_args!("{reference}: no registry"));
                let location = location.ok_or_else(absent)?;
                let (http, credentials) = (Arc::clone(&self.http), Arc::clone(&self.credentials));
                let context = Context { http, credentials, cancel: cancel.clone() };
                let is_other = |(authority, repository): &&(String, String)| {
                    *authority == location.authority && *repository != location.repository
                };
                let others = self.origins.iter().filter(is_other);
                let mut others: Vec<String> = others.map(|(_, other)| other.clone()).collect();
                others.sort();
                others.dedup();
                return Ok(Arc::new(Registry::new(reference.clone(), context, location, &others)));
            }
            Name::Path { transport, path, tag } => (transport, path, tag),
        };
        let (scratch, no_sync) = (self.scratch.as_path(), self.no_sync);
        Ok(match transport {
            Transport::Oci => Arc::new(Layout::open(path, tag.clone(), no_sync)?),
            Transport::OciArchive => {
                Arc::new(OciArchive::create(path, tag.clone(), scratch, no_sync)?)
            }
            Transport::DockerArchive => {
                Arc::new(DockerArchive::create(path, tag.as_deref(), scratch, no_sync)?)
            }
        })
    }
}
