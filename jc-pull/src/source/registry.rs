//! A registry, by the OCI distribution-spec: the image's places, tried in their order.

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use jc_unshare::{Error, Result};
use reqwest::blocking::Response;
use reqwest::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use reqwest::{Method, StatusCode, Url};

use super::refusal::refusal;
use super::{Blob, Raw, Source};
use crate::auth::{self, Challenge, TokenRequest};
use crate::cancel::Cancel;
use crate::credentials::{Credentials, Login};
use crate::digest::Digest;
use crate::http::{Fault, Request, Retry, Transport, Zone, read_body};
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
}

/// A success, of which the body is not read yet.
struct Answer {
    response: Response,
    /// When a document has to be at its end.
    until: Instant,
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

    /// The transport of all requests.
    pub fn http(&self) -> &Transport {
        &self.http
    }

    /// Makes one attempt after the other, as many as there may be for one document.
    fn persist<T>(&self, attempt: impl Fn() -> Result<T, Fault>) -> Result<T> {
        let mut retry = Retry::new(self.http.options().retries);
        loop {
            let outcome = attempt();
            let Err(fault) = outcome else { return outcome.map_err(|fault| fault.error) };
            retry.wait(fault, &self.cancel).map_err(|fault| fault.error)?;
        }
    }

    /// Asks the places in their order; an answer is a success. This is one attempt.
    fn ask(&self, question: Question<'_>) -> Result<Answer, Fault> {
        let mut last = None;
        let first = self.current.load(Ordering::Relaxed);
        for (number, place) in self.places.iter().enumerate().skip(first) {
            match self.ask_place(place, question) {
                Ok(answer) => {
                    if question.kind == "manifests" {
                        self.current.store(number, Ordering::Relaxed);
                    }
                    return Ok(answer);
                }
                // The registry itself comes last, and its word counts.
                Err(fault) => last = Some(fault),
            }
        }
        Err(last.unwrap_or_else(|| Fault::lasting(Error::new("no place to ask"))))
    }

    fn ask_place(&self, place: &Place, question: Question<'_>) -> Result<Answer, Fault> {
        let Question { kind, target, .. } = question;
        let until = self.http.options().deadline();
        let path = format!("v2/{}/{kind}/{target}", place.location.repository);
        let response = match place.base.get() {
            Some(base) => self.get_url(place, join(base, &path)?, question, until)?,
            None => {
                let (base, response) = self.probe(place, &path, question, until)?;
                place.base.get_or_init(|| base);
                response
            }
        };
        if response.status().is_success() {
            return Ok(Answer { response, until });
        }
        let known = self.login(place).map_err(Fault::lasting)?.is_some();
        Err(refusal(question.method, response, known, until, &self.cancel))
    }

    /// Asks in one scheme after the other, to find out which one the registry speaks.
    fn probe(
        &self,
        place: &Place,
        path: &str,
        question: Question<'_>,
        until: Instant,
    ) -> Result<(Url, Response), Fault> {
        let authority = place.authority();
        let mut told: Option<Fault> = None;
        for scheme in place.schemes() {
            let base = Url::parse(&format!("{scheme}://{authority}/")).map_err(|e| {
                Fault::lasting(Error::new(format_args!("registry {authority}: {e}")))
            })?;
            let fault = match self.get_url(place, join(&base, path)?, question, until) {
                // What TLS servers say to plain http.
                Ok(response) if *scheme == "http" && response.status() == 400 => {
                    refusal(question.method, response, false, until, &self.cancel)
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

    fn get_url(
        &self,
        place: &Place,
        url: Url,
        question: Question<'_>,
        until: Instant,
    ) -> Result<Response, Fault> {
        let known = place.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut request = Request {
            method: question.method.clone(),
            authorization: known.as_deref(),
            skip: question.skip,
            ..Request::get(url, question.accept, place.location.insecure, until)
        };
        let response = self.http.send(&request)?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let Some(fresh) = self.authorize(place, &request, &response)? else {
            return Ok(response);
        };
        request.authorization = Some(&fresh);
        let response = self.http.send(&request)?;
        *place.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(fresh);
        Ok(response)
    }

    /// The `Authorization` that answers the challenge in `response`; none if there is none.
    fn authorize(
        &self,
        place: &Place,
        refused: &Request<'_>,
        response: &Response,
    ) -> Result<Option<String>, Fault> {
        let values = response.headers().get_all(WWW_AUTHENTICATE);
        let texts: Vec<&str> = values.iter().filter_map(|v| v.to_str().ok()).collect();
        let challenges = Challenge::parse(&texts.join(", "));
        let login = self.login(place).map_err(Fault::lasting)?;
        let find = |scheme: &str| challenges.iter().find(|c| c.scheme == scheme);
        match (find("bearer"), find("basic"), login) {
            (Some(challenge), _, login) => {
                let scope = format!("repository:{}:pull", place.location.repository);
                let login = login.as_ref();
                let wanted = TokenRequest { challenge, scope: &scope, login, refused };
                auth::bearer(&self.http, &wanted, &self.cancel).map(Some)
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

    /// Makes one attempt to get the blob from byte `skip` on, or from the first if the registry does
    /// not know ranges. A layer that the registry refuses may have other URLs, see
    /// [`Self::foreign_blob`].
    pub fn blob_from(&self, descriptor: &Descriptor, skip: u64) -> Result<Response, Fault> {
        let target = descriptor.digest.to_string();
        let method = &Method::GET;
        let outcome =
            self.ask(Question { method, kind: "blobs", target: &target, accept: "*/*", skip });
        match outcome {
            Ok(answer) => Ok(answer.response),
            Err(fault) if fault.transient || descriptor.urls.is_empty() => Err(fault),
            Err(_) => self.foreign_blob(descriptor, skip),
        }
    }

    /// Asks the URLs that the manifest has for a layer, without a login, within the time of one
    /// attempt.
    fn foreign_blob(&self, descriptor: &Descriptor, skip: u64) -> Result<Response, Fault> {
        let until = self.http.options().deadline();
        let place = self.places.get(self.current.load(Ordering::Relaxed));
        let base = place.and_then(|place| place.base.get());
        let named_by = base.map_or(Zone::Public, |base| self.http.zone(base));
        let insecure = place.is_some_and(|place| place.location.insecure);
        let mut last = None;
        for url in &descriptor.urls {
            let url = Url::parse(url)
                .map_err(|e| Fault::lasting(Error::new(format_args!("url {url:?}: {e}"))))?;
            let named_by = Some(named_by);
            let request = Request { skip, named_by, ..Request::get(url, "*/*", insecure, until) };
            match self.http.send(&request) {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) => {
                    last = Some(refusal(&Method::GET, response, false, until, &self.cancel));
                }
                Err(fault) => last = Some(fault),
            }
            if Instant::now() > until {
                break;
            }
        }
        Err(last.unwrap_or_else(|| Fault::lasting(Error::new("a layer without a URL"))))
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
        // Some registries know no HEAD, and the answer to one explains nothing: GET decides.
        let head = || match self.ask_for_manifest(&Method::HEAD, None) {
            Err(fault) if fault.status.is_some_and(|s| s != StatusCode::TOO_MANY_REQUESTS) => {
                Ok(None)
            }
            outcome => outcome.map(|answer| content_digest(&answer.response)),
        };
        self.persist(head)
    }

    fn document(&self, digest: Option<&Digest>) -> Result<Raw> {
        self.persist(|| {
            let mut answer = self.ask_for_manifest(&Method::GET, digest)?;
            let response = &mut answer.response;
            let bytes = read_body(response, MAX_DOCUMENT as usize, answer.until, &self.cancel)?;
            // A proxy on the way may have changed what no digest was asked for.
            content_digest(response)
                .map_or(Ok(()), |digest| digest.check(&bytes))
                .map_err(|e| Fault::lasting(e.context("manifest: Docker-Content-Digest")))?;
            let media_type = response.headers().get(CONTENT_TYPE);
            let media_type = media_type.and_then(|v| v.to_str().ok()).map(str::to_owned);
            Ok(Raw { bytes, media_type })
        })
    }

    fn blob(
        self: Arc<Self>,
        descriptor: &Descriptor,
        cancel: &Cancel,
    ) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(Blob::start(self, descriptor.clone(), cancel.clone())?))
    }
}

impl Registry {
    /// Asks for the document that the name stands for, or for the one of that digest.
    fn ask_for_manifest(&self, method: &Method, digest: Option<&Digest>) -> Result<Answer, Fault> {
        let target = digest.map_or_else(|| self.reference.target(), Digest::to_string);
        let (kind, accept, skip) = ("manifests", ACCEPT, 0);
        self.ask(Question { method, kind, target: &target, accept, skip })
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
