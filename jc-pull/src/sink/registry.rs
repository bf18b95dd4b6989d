//! A registry as a destination. A mirror is none.

use std::sync::Mutex;
use std::time::Instant;

use jc_unshare::{Error, Result};
use reqwest::Method;

use super::upload::{Receiver, check_digest};
use super::{Document, Image, Outgoing, Sink, Written};
use crate::digest::Digest;
use crate::http::{Content, Fault, read_body};
use crate::manifest::{ACCEPT, MAX_DOCUMENT};
use crate::parallel::lock;
use crate::source::endpoint::{ApiRequest, Context, Endpoint, Object};
use jc_unshare::image::Reference;
use jc_unshare::image::registries::Location;

/// A repository of a registry, and the tag for the image.
pub struct Registry {
    reference: Reference,
    context: Context,
    authority: String,
    endpoint: Endpoint,
    /// The digest that has been written under the tag.
    written: Mutex<Option<Digest>>,
}

impl Registry {
    /// A destination that may take blobs from other `repositories` of the registry. No request is sent yet.
    pub fn new(
        reference: Reference,
        context: Context,
        location: Location,
        repositories: &[String],
    ) -> Self {
        let authority = location.authority.clone();
        let endpoint = Endpoint::to_write(location, repositories);
        Self { reference, context, authority, endpoint, written: Mutex::default() }
    }

    fn receiver(&self) -> Receiver<'_> {
        Receiver { endpoint: &self.endpoint, context: &self.context }
    }

    /// Makes attempts, as many as the options allow for one object.
    fn persist<T>(&self, attempt: impl FnMut() -> Result<T, Fault>) -> Result<T> {
        self.receiver().retry().run(&self.context.cancel, attempt).map_err(|fault| fault.error)
    }

    fn put_document(&self, document: &Document, named: bool) -> Result<()> {
        let digest = &document.digest;
        let target = if named { self.reference.target() } else { digest.to_string() };
        self.persist(|| {
            let (bytes, media_type) = (document.bytes.as_slice(), document.media_type.as_str());
            let content = Content { bytes, media_type, start: None };
            let object = Object::Manifest(&target);
            let request = ApiRequest::write(&Method::PUT, object, content);
            let answer = self.receiver().attempt(request)?;
            check_digest(&answer.response, digest)
        })?;
        if named {
            *lock(&self.written) = Some(digest.clone());
        }
        Ok(())
    }

    /// The document that the registry has under the tag.
    fn current(&self) -> Result<Vec<u8>> {
        let target = self.reference.target();
        self.persist(|| {
            let until: Instant = self.context.http.options().deadline();
            let request = ApiRequest::read(&Method::GET, Object::Manifest(&target), ACCEPT);
            let mut answer = self.receiver().attempt(request)?;
            let limit = MAX_DOCUMENT as usize;
            read_body(&mut answer.response, limit, until, &self.context.cancel)
        })
    }
}

impl Sink for Registry {
    fn name(&self) -> String {
        self.reference.to_string()
    }

    fn authority(&self) -> Option<&str> {
        Some(&self.authority)
    }

    fn has(&self, blob: &Written) -> Result<bool> {
        let Written { digest, size } = blob;
        match self.persist(|| self.receiver().size_of(digest))? {
            Some(Some(found)) if found != *size => {
                let why = format_args!("the registry has {digest} with {found} bytes, not {size}");
                Err(Error::new(why))
            }
            found => Ok(found.is_some()),
        }
    }

    fn put(&self, blob: &Outgoing<'_>) -> Result<Written> {
        let written = self.receiver().put(blob)?;
        if !self.has(&written)? {
            let why = format_args!("the registry took {} and does not have it", written.digest);
            return Err(Error::new(why));
        }
        Ok(written)
    }

    fn put_image(&self, image: Image, named: bool) -> Result<()> {
        self.put_document(&image.manifest, named)
    }

    fn put_index(&self, index: Document) -> Result<()> {
        self.put_document(&index, true)
    }

    fn finish(&self) -> Result<()> {
        let Some(written) = lock(&self.written).clone() else { return Ok(()) };
        let found = self.current()?;
        written.check(&found).map_err(|e| e.context("the registry has something else"))
    }
}
