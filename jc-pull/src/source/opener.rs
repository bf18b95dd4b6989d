//! From a name to its source.

use std::path::Path;
use std::sync::Arc;

use jc_unshare::Result;

use super::Source;
use super::archive::Spool;
use super::docker_archive::DockerArchive;
use super::endpoint::Context;
use super::layout::Layout;
use super::registry::Registry;
use crate::cancel::Cancel;
use crate::credentials::Credentials;
use crate::http::Http;
use crate::limits::Allowance;
use jc_unshare::image::registries::Registries;
use jc_unshare::image::{Name, Transport};

/// The configuration and the options with which sources are opened.
pub struct Opener {
    pub http: Arc<Http>,
    pub credentials: Arc<Credentials>,
    pub registries: Registries,
    /// Whether plain http and unknown certificates are allowed for every registry.
    pub insecure: bool,
    /// The limit for the copy of an archive.
    pub allowance: Allowance,
}

impl Opener {
    /// Opens the source of a name. Copies of archives are files in `scratch`. Errors are those of files and
    /// archives, and of a registry that the configuration blocks.
    pub fn open(&self, name: &Name, scratch: &Path, cancel: &Cancel) -> Result<Arc<dyn Source>> {
        let spool = Spool { directory: scratch, allowance: self.allowance };
        Ok(match name {
            Name::Registry(reference) => {
                let locations = self.registries.locate(reference, self.insecure)?;
                let (http, credentials) = (Arc::clone(&self.http), Arc::clone(&self.credentials));
                let context = Context { http, credentials, cancel: cancel.clone() };
                Arc::new(Registry::new(reference.clone(), context, locations))
            }
            Name::Path { transport, path, tag } => match transport {
                Transport::Oci => Arc::new(Layout::open(path, tag.as_deref())?),
                Transport::OciArchive => {
                    Arc::new(Layout::open_archive(path, tag.as_deref(), spool)?)
                }
                Transport::DockerArchive => {
                    Arc::new(DockerArchive::open(path, tag.as_deref(), spool)?)
                }
            },
        })
    }
}
