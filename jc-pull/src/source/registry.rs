//! A registry, by the OCI distribution-spec.

use std::io::{self, Read};
use std::sync::{Mutex, OnceLock, PoisonError};

use jc_unshare::{Error, Result};
use reqwest::blocking::Response;
use reqwest::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use super::{Raw, Source};
use crate::auth::{self, Challenge};
use crate::digest::Digest;
use crate::http::{Request, Transport, failed, root_cause};
use crate::manifest::{ACCEPT, Descriptor, MAX_DOCUMENT};
use crate::name::Reference;

/// An image in a registry.
pub struct Registry<'a> {
    reference: Reference,
    http: &'a Transport,
    base: OnceLock<Url>,
    authorization: Mutex<Option<String>>,
}

impl<'a> Registry<'a> {
    /// Nothing is asked of the registry yet.
    pub fn new(reference: Reference, http: &'a Transport) -> Self {
        Self { reference, http, base: OnceLock::new(), authorization: Mutex::new(None) }
    }

    /// Gets `/v2/REPOSITORY/kind/target`, having found out how the registry is to be spoken to.
    fn get(&self, kind: &str, target: &str, accept: &str) -> Result<Response> {
        let path = format!("v2/{}/{kind}/{target}", self.reference.repository);
        let response = match self.base.get() {
            Some(base) => self.get_url(&join(base, &path)?, accept)?,
            None => self.first_get(&path, accept)?,
        };
        if response.status().is_success() { Ok(response) } else { Err(refusal(response)) }
    }

    /// The first request finds out the scheme that the registry speaks.
    fn first_get(&self, path: &str, accept: &str) -> Result<Response> {
        let authority = self.reference.endpoint();
        let mut first_error = None;
        for scheme in self.http.schemes(authority) {
            let base = Url::parse(&format!("{scheme}://{authority}/"))
                .map_err(|e| Error::new(format_args!("registry {authority}: {e}")))?;
            match self.get_url(&join(&base, path)?, accept) {
                // What Go's TLS servers say to plain http.
                Ok(response) if *scheme == "http" && response.status() == 400 => {
                    first_error.get_or_insert_with(|| refusal(response));
                }
                Ok(response) => {
                    self.base.get_or_init(|| base);
                    return Ok(response);
                }
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        Err(first_error.unwrap_or_else(|| Error::new(format_args!("registry {authority}"))))
    }

    fn get_url(&self, url: &Url, accept: &str) -> Result<Response> {
        let known = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let response = self.send(url, accept, known.as_deref())?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let challenge = challenges(&response).find(|c| c.scheme == "bearer");
        let Some(challenge) = challenge else { return Ok(response) };
        let scope = format!("repository:{}:pull", self.reference.repository);
        let fresh = auth::anonymous(self.http, &challenge, &scope)?;
        let response = self.send(url, accept, Some(&fresh))?;
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(fresh);
        Ok(response)
    }

    fn send(&self, url: &Url, accept: &str, authorization: Option<&str>) -> Result<Response> {
        self.http.send(&Request { method: Method::GET, url: url.clone(), accept, authorization })
    }

    fn document(&self, target: &str) -> Result<Raw> {
        let response = self.get("manifests", target, ACCEPT)?;
        let media_type =
            response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let url = response.url().clone();
        let mut bytes = Vec::new();
        let read = Body(response).take(MAX_DOCUMENT + 1).read_to_end(&mut bytes);
        match read {
            Err(e) => Err(failed(&Method::GET, &url, jc_unshare::strerror(&e))),
            Ok(n) if n as u64 > MAX_DOCUMENT => {
                Err(failed(&Method::GET, &url, "a manifest of more than 4 MiB"))
            }
            Ok(_) => Ok(Raw { bytes, media_type }),
        }
    }
}

impl Source for Registry<'_> {
    fn name(&self) -> String {
        self.reference.to_string()
    }

    fn top(&self) -> Result<(Raw, Option<Digest>)> {
        Ok((self.document(&self.reference.target())?, self.reference.digest.clone()))
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Raw> {
        self.document(&descriptor.digest.to_string())
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>> {
        let response = self.get("blobs", &descriptor.digest.to_string(), "*/*")?;
        Ok(Box::new(Body(response)))
    }
}

/// A response's content, whose errors name their cause.
struct Body(Response);

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|e| io::Error::new(e.kind(), root_cause(&e)))
    }
}

fn join(base: &Url, path: &str) -> Result<Url> {
    base.join(path).map_err(|e| Error::new(format_args!("{base}{path}: {e}")))
}

fn challenges(response: &Response) -> impl Iterator<Item = Challenge> {
    let values = response.headers().get_all(WWW_AUTHENTICATE);
    let texts: Vec<&str> = values.iter().filter_map(|v| v.to_str().ok()).collect();
    Challenge::parse(&texts.join(", ")).into_iter()
}

/// The body of an error (distribution-spec, "Error Codes").
#[derive(Default, Deserialize)]
struct Refusal {
    #[serde(default)]
    errors: Vec<RefusalEntry>,
}

#[derive(Deserialize)]
struct RefusalEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

fn refusal(response: Response) -> Error {
    let (url, status) = (response.url().clone(), response.status());
    let mut body = Vec::new();
    // The status alone is told if the explanation cannot be had.
    let _: io::Result<usize> = Body(response).take(64 << 10).read_to_end(&mut body);
    let refusal: Refusal = serde_json::from_slice(&body).unwrap_or_default();
    let why = match refusal.errors.first() {
        Some(e) if !e.message.is_empty() => format!("{status}: {}", e.message),
        Some(e) => format!("{status}: {}", e.code),
        None => status.to_string(),
    };
    let error = failed(&Method::GET, &url, why);
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            error.hint("the image does not exist, or may not be had anonymously")
        }
        StatusCode::NOT_FOUND => error.hint("no such image or tag"),
        _ => error,
    }
}
