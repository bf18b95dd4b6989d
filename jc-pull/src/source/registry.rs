//! A registry (OCI distribution-spec): the endpoints of an image, in their order.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use jc_unshare::{Error, Result};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode, Url};

use super::blob::Blob;
use super::endpoint::{Answer, ApiRequest, Context, Endpoint, Object};
use super::refusal::{Refused, refusal};
use super::{RawDocument, Source};
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::http::{Fault, Request, Response, Retry, Zone, read_body};
use crate::manifest::{ACCEPT, Descriptor, MAX_DOCUMENT};
use jc_unshare::image::Reference;
use jc_unshare::image::registries::Location;

pub struct Registry {
    reference: Reference,
    context: Context,
    endpoints: Vec<Endpoint>,
    /// The endpoint that answered first. The others may have another image.
    current: AtomicUsize,
}

impl Registry {
    /// Sends no request yet.
    pub fn new(reference: Reference, context: Context, locations: Vec<Location>) -> Self {
        let endpoints = locations.into_iter().map(Endpoint::new).collect();
        Self { reference, context, endpoints, current: AtomicUsize::new(0) }
    }

    /// Makes attempts, as many as the options allow for one document.
    fn persist<T>(&self, attempt: impl Fn() -> Result<T, Fault>) -> Result<T> {
        let mut retry = Retry::new(self.context.http.options().retries);
        retry.run(&self.context.cancel, attempt).map_err(|fault| fault.error)
    }

    /// Makes one attempt at the endpoints, in their order, up to the first success.
    fn attempt(&self, request: ApiRequest<'_>) -> Result<Answer, Fault> {
        let mut last = None;
        let first = self.current.load(Ordering::Relaxed);
        for (number, endpoint) in self.endpoints.iter().enumerate().skip(first) {
            match endpoint.attempt(&self.context, request) {
                Ok(answer) => {
                    if matches!(request.object, Object::Manifest(_)) {
                        self.current.store(number, Ordering::Relaxed);
                    }
                    return Ok(answer);
                }
                // The registry itself comes last, and its fault is the one to report.
                Err(fault) => last = Some(fault),
            }
        }
        Err(last.unwrap_or_else(|| Fault::permanent(Error::new("no place to ask"))))
    }

    /// Makes one attempt to get a document: that of a digest, or the present one of the name.
    fn manifest(&self, method: &Method, digest: Option<&Digest>) -> Result<Answer, Fault> {
        let target = digest.map_or_else(|| self.reference.target(), Digest::to_string);
        self.attempt(ApiRequest::read(method, Object::Manifest(&target), ACCEPT))
    }

    /// Makes one attempt to get a blob from byte `skip` on, or from the first byte if the registry does
    /// not know ranges. A layer that the registry refuses may have other URLs.
    fn blob_from(&self, descriptor: &Descriptor, skip: u64) -> Result<Response, Fault> {
        let target = descriptor.digest.to_string();
        let request = ApiRequest::read(&Method::GET, Object::Blob(&target), "*/*");
        match self.attempt(ApiRequest { skip, ..request }) {
            Ok(answer) => Ok(answer.response),
            Err(fault) if fault.transient || descriptor.urls.is_empty() => Err(fault),
            Err(_) => self.foreign_blob(descriptor, skip),
        }
    }

    /// Tries the URLs that the manifest has for a layer, without a login, within the time of one attempt.
    fn foreign_blob(&self, descriptor: &Descriptor, skip: u64) -> Result<Response, Fault> {
        let Context { http, cancel, .. } = &self.context;
        let until = http.options().deadline();
        let endpoint = self.endpoints.get(self.current.load(Ordering::Relaxed));
        let base = endpoint.and_then(Endpoint::base);
        let named_by = Some(base.map_or(Zone::Public, |base| http.zone(base)));
        let insecure = endpoint.is_some_and(Endpoint::is_insecure);
        let (method, has_login, writes) = (&Method::GET, false, false);
        let refused = Refused { method, has_login, writes, until, cancel };
        let mut last = None;
        for url in &descriptor.urls {
            let url = Url::parse(url)
                .map_err(|e| Fault::permanent(Error::new(format_args!("url {url:?}: {e}"))))?;
            let request = Request { skip, named_by, ..Request::get(url, "*/*", insecure, until) };
            match http.send(&request) {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) => last = Some(refusal(response, &refused)),
                Err(fault) => last = Some(fault),
            }
            if Instant::now() > until {
                break;
            }
        }
        Err(last.unwrap_or_else(|| Fault::permanent(Error::new("a layer without a URL"))))
    }
}

impl Source for Registry {
    fn name(&self) -> String {
        self.reference.to_string()
    }

    fn current(&self) -> Result<Option<Digest>> {
        if let Some(digest) = &self.reference.digest {
            return Ok(Some(digest.clone()));
        }
        // Some registries do not know HEAD, and its answers have no explanation: GET decides.
        let head = || match self.manifest(&Method::HEAD, None) {
            Err(fault) if fault.status.is_some_and(|s| s != StatusCode::TOO_MANY_REQUESTS) => {
                Ok(None)
            }
            outcome => outcome.map(|answer| content_digest(&answer.response)),
        };
        self.persist(head)
    }

    fn document(&self, digest: Option<&Digest>) -> Result<RawDocument> {
        self.persist(|| {
            let mut answer = self.manifest(&Method::GET, digest)?;
            let response = &mut answer.response;
            let cancel = &self.context.cancel;
            let bytes = read_body(response, MAX_DOCUMENT as usize, answer.until, cancel)?;
            // Without a digest in the request, a proxy could change the document.
            content_digest(response)
                .map_or(Ok(()), |digest| digest.check(&bytes))
                .map_err(|e| Fault::permanent(e.context("manifest: Docker-Content-Digest")))?;
            let media_type = response.headers().get(CONTENT_TYPE);
            let media_type = media_type.and_then(|v| v.to_str().ok()).map(str::to_owned);
            Ok(RawDocument { bytes, media_type })
        })
    }

    fn blob(
        self: Arc<Self>,
        descriptor: &Descriptor,
        cancel: &Cancel,
    ) -> Result<Box<dyn Read + Send>> {
        let (http, descriptor) = (Arc::clone(&self.context.http), descriptor.clone());
        let size = descriptor.size;
        let connect = move |skip| self.blob_from(&descriptor, skip);
        let blob = Blob::start(Box::new(connect), size, http.options(), cancel.clone())?;
        Ok(Box::new(blob))
    }
}

/// The digest in an answer (distribution-spec, "Pulling manifests").
pub fn content_digest(response: &Response) -> Option<Digest> {
    let digest = response.headers().get("docker-content-digest")?;
    Digest::parse(digest.to_str().ok()?).ok()
}
