//! A registry, by the OCI distribution-spec: the image's places, tried in their order.

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use jc_unshare::{Error, Result, strerror};
use reqwest::blocking::Response;
use reqwest::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use reqwest::{Method, StatusCode, Url};

use super::refusal::refusal;
use super::{Blob, Raw, Source, WHOLE_CALL};
use crate::auth::{self, Challenge};
use crate::cancel::Cancel;
use crate::credentials::{Credentials, Login};
use crate::digest::Digest;
use crate::http::{
    Fault, Request, Retry, Transport, failed, is_transient, retry_after, root_cause,
};
use crate::manifest::{ACCEPT, Descriptor, MAX_DOCUMENT};
use crate::name::{Reference, is_loopback};
use crate::registries::{Location, Registries};

/// An image in a registry.
pub struct Registry {
    reference: Reference,
    http: Arc<Transport>,
    credentials: Arc<Credentials>,
    cancel: Cancel,
    places: Vec<Place>,
    /// The place that answered first: the others may have another image.
    current: AtomicUsize,
}

/// One place to ask, and what has been found out about it.
struct Place {
    location: Location,
    base: OnceLock<Url>,
    authorization: Mutex<Option<String>>,
}

/// What to ask a place for.
#[derive(Clone, Copy)]
struct Question<'a> {
    method: &'a Method,
    /// `manifests` or `blobs`.
    kind: &'a str,
    target: &'a str,
    accept: &'a str,
    skip: u64,
    /// Whether to try again what may go better then.
    again: bool,
}

impl Registry {
    /// Nothing is asked of the registry yet.
    pub fn new(
        reference: Reference,
        http: Arc<Transport>,
        credentials: Arc<Credentials>,
        registries: &Registries,
        insecure: bool,
        cancel: Cancel,
    ) -> Result<Self> {
        let place =
            |location| Place { location, base: OnceLock::new(), authorization: Mutex::default() };
        let places = registries.locate(&reference, insecure)?.into_iter().map(place).collect();
        let current = AtomicUsize::new(0);
        Ok(Self { reference, http, credentials, cancel, places, current })
    }

    /// How it is spoken to.
    pub fn http(&self) -> &Transport {
        &self.http
    }

    /// Asks the places in their order; what they answer is success.
    fn ask(&self, question: Question<'_>) -> Result<Response, Fault> {
        let mut last = None;
        let first = self.current.load(Ordering::Relaxed);
        for (number, place) in self.places.iter().enumerate().skip(first) {
            match self.ask_place(place, question) {
                Ok(response) => {
                    if question.kind == "manifests" {
                        self.current.store(number, Ordering::Relaxed);
                    }
                    return Ok(response);
                }
                // The registry itself comes last, and its word counts.
                Err(fault) => last = Some(fault),
            }
        }
        Err(last.unwrap_or_else(|| Fault::lasting(Error::new("no place to ask"))))
    }

    fn ask_place(&self, place: &Place, question: Question<'_>) -> Result<Response, Fault> {
        let Question { kind, target, .. } = question;
        let path = format!("v2/{}/{kind}/{target}", place.location.repository);
        let response = match place.base.get() {
            Some(base) => self.get_url(place, &join(base, &path)?, question)?,
            None => self.first_get(place, &path, question)?,
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let known = self.login(place).map_err(Fault::lasting)?.is_some();
        let status = response.status();
        Err(Fault::refused(refusal(question.method, response, known), status))
    }

    /// The first request finds out the scheme that the registry speaks.
    fn first_get(
        &self,
        place: &Place,
        path: &str,
        question: Question<'_>,
    ) -> Result<Response, Fault> {
        let mut retry = Retry::new(self.http.options().retries);
        let once = Question { again: false, ..question };
        loop {
            let outcome = match place.base.get() {
                Some(base) => self.get_url(place, &join(base, path)?, once),
                None => self.probe(place, path, once).map(|(base, response)| {
                    place.base.get_or_init(|| base);
                    response
                }),
            };
            let asked = match &outcome {
                Ok(response) if is_transient(response.status()) => retry_after(response),
                Err(fault) if fault.transient => None,
                _ => return outcome,
            };
            let Some(pause) = retry.next(asked) else { return outcome };
            let given_up = |e| Fault::lasting(Error::new(strerror(&e)));
            self.cancel.sleep(pause).map_err(given_up)?;
        }
    }

    /// Asks in one scheme after the other; what is answered, and by which server.
    fn probe(
        &self,
        place: &Place,
        path: &str,
        question: Question<'_>,
    ) -> Result<(Url, Response), Fault> {
        let authority = place.authority();
        let mut told: Option<Fault> = None;
        for scheme in place.schemes() {
            let base = Url::parse(&format!("{scheme}://{authority}/")).map_err(|e| {
                Fault::lasting(Error::new(format_args!("registry {authority}: {e}")))
            })?;
            let fault = match self.get_url(place, &join(&base, path)?, question) {
                // What TLS servers say to plain http.
                Ok(response) if *scheme == "http" && response.status() == 400 => {
                    let status = response.status();
                    Fault::refused(refusal(question.method, response, false), status)
                }
                Ok(response) => return Ok((base, response)),
                // It did answer, to no good.
                Err(fault) if *scheme == "http" && !fault.transient => return Err(fault),
                Err(fault) => fault,
            };
            // Of two failures the second is to the point, if the server may well speak TLS.
            let lasting = !fault.transient && fault.speaks_tls != Some(false);
            if told.is_none() || lasting {
                told = Some(fault);
            }
        }
        let nothing = || Fault::lasting(Error::new(format_args!("registry {authority}")));
        Err(told.unwrap_or_else(nothing))
    }

    fn get_url(&self, place: &Place, url: &Url, question: Question<'_>) -> Result<Response, Fault> {
        let known = place.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let response = self.send(place, url, question, known.as_deref())?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let Some(fresh) = self.authorize(place, &response).map_err(Fault::lasting)? else {
            return Ok(response);
        };
        let response = self.send(place, url, question, Some(&fresh))?;
        *place.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(fresh);
        Ok(response)
    }

    /// What to send so that the registry lets one in; nothing if there is nothing.
    fn authorize(&self, place: &Place, response: &Response) -> Result<Option<String>> {
        let values = response.headers().get_all(WWW_AUTHENTICATE);
        let texts: Vec<&str> = values.iter().filter_map(|v| v.to_str().ok()).collect();
        let challenges = Challenge::parse(&texts.join(", "));
        let login = self.login(place)?;
        let find = |scheme: &str| challenges.iter().find(|c| c.scheme == scheme);
        match (find("bearer"), find("basic"), login) {
            (Some(challenge), _, login) => {
                let scope = format!("repository:{}:pull", place.location.repository);
                let insecure = place.location.insecure;
                let login = login.as_ref();
                auth::bearer(&self.http, challenge, &scope, login, insecure, &self.cancel).map(Some)
            }
            (None, Some(_), Some(Login::Password { user, password })) => {
                Ok(Some(auth::basic(&user, &password)))
            }
            _ => Ok(None),
        }
    }

    fn login(&self, place: &Place) -> Result<Option<Login>> {
        let Location { authority, repository, mirror, .. } = &place.location;
        self.credentials.find(authority, repository, !mirror)
    }

    fn send(
        &self,
        place: &Place,
        url: &Url,
        question: Question<'_>,
        authorization: Option<&str>,
    ) -> Result<Response, Fault> {
        let request = Request {
            method: question.method.clone(),
            authorization,
            skip: question.skip,
            again: question.again,
            ..Request::get(url.clone(), question.accept, place.location.insecure)
        };
        self.http.send(&request, &self.cancel)
    }

    /// The blob from byte `skip` on, or from the first if the registry does not know ranges. Where
    /// the registry does not have a layer that says where else it is, it is got from there.
    pub fn blob_from(
        &self,
        descriptor: &Descriptor,
        skip: u64,
        cancel: &Cancel,
    ) -> Result<Response> {
        let target = descriptor.digest.to_string();
        let method = &Method::GET;
        let question =
            Question { method, kind: "blobs", target: &target, accept: "*/*", skip, again: true };
        let mut outcome = self.ask(question).map_err(|fault| fault.error);
        for url in &descriptor.urls {
            if outcome.is_ok() {
                break;
            }
            let url = Url::parse(url).map_err(|e| Error::new(format_args!("url {url:?}: {e}")))?;
            // Nobody is told who asks.
            let request = Request { skip, ..Request::get(url, "*/*", false) };
            outcome = match self.http.send(&request, cancel) {
                Ok(response) if response.status().is_success() => Ok(response),
                Ok(response) => Err(refusal(method, response, false)),
                Err(fault) => Err(fault.error),
            };
        }
        outcome
    }
}

impl Place {
    /// `host[:port]` that serves the API: Docker Hub's is not the name in its references.
    fn authority(&self) -> &str {
        match self.location.authority.as_str() {
            "docker.io" => "registry-1.docker.io",
            other => other,
        }
    }

    /// The schemes to try: plain http without asking is for loopback only.
    fn schemes(&self) -> &'static [&'static str] {
        match (self.location.scheme, is_loopback(self.authority()), self.location.insecure) {
            (Some("http"), ..) => &["http"],
            (Some(_), ..) => &["https"],
            (None, true, _) => &["http", "https"],
            (None, false, true) => &["https", "http"],
            (None, false, false) => &["https"],
        }
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
        let response = match self.ask_for_manifest(&Method::HEAD, None) {
            Ok(response) => response,
            // Some registries know no HEAD, and the answer to one explains nothing: GET decides.
            Err(fault) if fault.status.is_some_and(|s| s != StatusCode::TOO_MANY_REQUESTS) => {
                return Ok(None);
            }
            Err(fault) => return Err(fault.error),
        };
        Ok(content_digest(&response))
    }

    fn document(&self, digest: Option<&Digest>) -> Result<Raw> {
        let response = self.ask_for_manifest(&Method::GET, digest).map_err(|fault| fault.error)?;
        let media_type =
            response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let said = content_digest(&response);
        let bytes = self.read_document(response)?;
        // A proxy on the way may have changed what no digest was asked for.
        said.map_or(Ok(()), |digest| digest.check(&bytes))
            .map_err(|e| e.context("manifest: Docker-Content-Digest"))?;
        Ok(Raw { bytes, media_type })
    }

    fn blob(
        self: Arc<Self>,
        descriptor: &Descriptor,
        cancel: &Cancel,
    ) -> Result<Box<dyn Read + Send>> {
        let first = self.blob_from(descriptor, 0, cancel)?;
        Ok(Box::new(Blob::new(self, descriptor.clone(), first, cancel.clone())))
    }
}

impl Registry {
    /// About what the name itself stands for, or the document of that digest.
    fn ask_for_manifest(
        &self,
        method: &Method,
        digest: Option<&Digest>,
    ) -> Result<Response, Fault> {
        let target = digest.map_or_else(|| self.reference.target(), Digest::to_string);
        let (kind, accept, skip, again) = ("manifests", ACCEPT, 0, true);
        self.ask(Question { method, kind, target: &target, accept, skip, again })
    }

    fn read_document(&self, mut response: Response) -> Result<Vec<u8>> {
        let url = response.url().clone();
        let fault = |why: String| failed(&Method::GET, &url, why);
        let deadline = Instant::now() + self.http.options().timeout.saturating_mul(WHOLE_CALL);
        let mut bytes = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let n = response.read(&mut buffer).map_err(|e| fault(root_cause(&e)))?;
            bytes.extend_from_slice(buffer.get(..n).unwrap_or_default());
            if bytes.len() as u64 > MAX_DOCUMENT {
                return Err(fault("a manifest of more than 4 MiB".to_owned()));
            }
            if n == 0 {
                return Ok(bytes);
            }
            if Instant::now() > deadline {
                return Err(fault("too slow".to_owned()));
            }
            self.cancel.check().map_err(|e| fault(strerror(&e)))?;
        }
    }
}

fn join(base: &Url, path: &str) -> Result<Url, Fault> {
    base.join(path).map_err(|e| Fault::lasting(Error::new(format_args!("{base}{path}: {e}"))))
}

/// What the registry says the digest is (distribution-spec, "Pulling manifests").
fn content_digest(response: &Response) -> Option<Digest> {
    let digest = response.headers().get("docker-content-digest")?;
    Digest::parse(digest.to_str().ok()?).ok()
}
