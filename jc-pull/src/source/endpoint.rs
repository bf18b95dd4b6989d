//! A registry or mirror: its scheme, its logins, and one attempt to get an answer of it.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use jc_unshare::{Error, Result};
use reqwest::header::WWW_AUTHENTICATE;
use reqwest::{Method, StatusCode, Url};

use super::refusal::{Refused, refusal};
use crate::auth::{self, Challenge, TokenRequest};
use crate::cancel::Cancel;
use crate::credentials::{Credentials, Login};
use crate::http::{Content, Fault, Http, Payload, Request, Response};
use crate::parallel::lock;
use jc_unshare::image::is_loopback;
use jc_unshare::image::registries::Location;

/// The client, the logins and the options of all requests for one image.
#[derive(Clone)]
pub struct Context {
    pub http: Arc<Http>,
    pub credentials: Arc<Credentials>,
    pub cancel: Cancel,
}

/// A request of the distribution-spec.
#[derive(Clone, Copy)]
pub struct ApiRequest<'a> {
    pub method: &'a Method,
    pub object: Object<'a>,
    pub accept: &'a str,
    /// The first byte to send.
    pub skip: u64,
    /// The content of a request that writes.
    pub content: Option<Content<'a>>,
}

impl<'a> ApiRequest<'a> {
    /// A request that reads.
    pub const fn read(method: &'a Method, object: Object<'a>, accept: &'a str) -> Self {
        Self { method, object, accept, skip: 0, content: None }
    }

    /// A request that writes `content`.
    pub const fn write(method: &'a Method, object: Object<'a>, content: Content<'a>) -> Self {
        Self { method, object, accept: "*/*", skip: 0, content: Some(content) }
    }
}

/// The object of a request.
#[derive(Clone, Copy)]
pub enum Object<'a> {
    /// The manifest or index of a tag or digest.
    Manifest(&'a str),
    /// The blob of a digest.
    Blob(&'a str),
    /// The uploads of the repository, with a query.
    Uploads(&'a str),
    /// The upload that the registry has given this URL.
    Upload(&'a Url),
}

impl Object<'_> {
    fn url(self, base: &Url, repository: &str) -> Result<Url, Fault> {
        let path = match self {
            Self::Manifest(target) => format!("manifests/{target}"),
            Self::Blob(digest) => format!("blobs/{digest}"),
            Self::Uploads(query) => format!("blobs/uploads/{query}"),
            Self::Upload(url) => return Ok(url.clone()),
        };
        let path = format!("v2/{repository}/{path}");
        base.join(&path)
            .map_err(|e| Fault::permanent(Error::new(format_args!("{base}{path}: {e}"))))
    }
}

/// A success, whose body is not read yet.
pub struct Answer {
    pub response: Response,
    /// The end of the time for a document.
    pub until: Instant,
}

/// A registry or mirror, with its scheme and its `Authorization` once they are known.
pub struct Endpoint {
    location: Location,
    /// The kinds of access that a token is for.
    scopes: Vec<String>,
    /// Whether the endpoint is a destination.
    writes: bool,
    base: OnceLock<Url>,
    authorization: Mutex<Option<String>>,
}

impl Endpoint {
    /// An endpoint to pull from.
    pub fn new(location: Location) -> Self {
        let scopes = vec![format!("repository:{}:pull", location.repository)];
        let (base, authorization) = (OnceLock::new(), Mutex::default());
        Self { location, scopes, writes: false, base, authorization }
    }

    /// An endpoint to push to. Blobs may be mounted from other `repositories` of the registry.
    pub fn to_write(location: Location, repositories: &[String]) -> Self {
        let mut scopes = vec![format!("repository:{}:pull,push", location.repository)];
        scopes.extend(repositories.iter().map(|other| format!("repository:{other}:pull")));
        Self { scopes, writes: true, ..Self::new(location) }
    }

    /// The URL of the server, once it has answered.
    pub fn base(&self) -> Option<&Url> {
        self.base.get()
    }

    /// Whether plain http and unknown certificates are allowed.
    pub const fn is_insecure(&self) -> bool {
        self.location.insecure
    }

    /// Makes one attempt. An answer that is no success is a fault.
    pub fn attempt(&self, context: &Context, request: ApiRequest<'_>) -> Result<Answer, Fault> {
        let until = context.http.options().deadline();
        let attempt = Attempt { endpoint: self, context, request, until };
        let response = match self.base.get() {
            Some(base) => attempt.send(base)?,
            None => {
                let (base, response) = attempt.probe()?;
                self.base.get_or_init(|| base);
                response
            }
        };
        if response.status().is_success() {
            return Ok(Answer { response, until });
        }
        let has_login = self.login(context).map_err(Fault::permanent)?.is_some();
        Err(attempt.refusal(response, has_login))
    }

    fn login(&self, context: &Context) -> Result<Option<Login>> {
        let Location { authority, repository, mirror, .. } = &self.location;
        context.credentials.find(authority, repository, !mirror)
    }

    /// `host[:port]` of the API, which for Docker Hub is not the name in references.
    fn authority(&self) -> &str {
        match self.location.authority.as_str() {
            "docker.io" => "registry-1.docker.io",
            other => other,
        }
    }

    /// The schemes to try. Plain http without an option is for loopback addresses only.
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

/// An attempt at an endpoint.
struct Attempt<'a> {
    endpoint: &'a Endpoint,
    context: &'a Context,
    request: ApiRequest<'a>,
    /// The end of the time in which redirects are followed and an explanation is read.
    until: Instant,
}

impl Attempt<'_> {
    /// Tries one scheme after the other, to learn which one the server speaks.
    fn probe(&self) -> Result<(Url, Response), Fault> {
        let authority = self.endpoint.authority();
        let mut reported: Option<Fault> = None;
        for scheme in self.endpoint.schemes() {
            let base = Url::parse(&format!("{scheme}://{authority}/")).map_err(|e| {
                Fault::permanent(Error::new(format_args!("registry {authority}: {e}")))
            })?;
            let fault = match self.send(&base) {
                // A TLS server answers plain http so.
                Ok(response) if *scheme == "http" && response.status() == 400 => {
                    self.refusal(response, false)
                }
                Ok(response) => return Ok((base, response)),
                // The server speaks http, and the answer is final.
                Err(fault) if *scheme == "http" && !fault.transient => return Err(fault),
                Err(fault) => fault,
            };
            // The second of two faults counts if the server may speak TLS.
            let permanent = !fault.transient && fault.speaks_tls != Some(false);
            if reported.is_none() || permanent {
                reported = Some(fault);
            }
        }
        let no_scheme = || Fault::permanent(Error::new(format_args!("registry {authority}")));
        Err(reported.unwrap_or_else(no_scheme))
    }

    /// Sends the request, and replies to a challenge.
    fn send(&self, base: &Url) -> Result<Response, Fault> {
        let (location, http) = (&self.endpoint.location, &self.context.http);
        let ApiRequest { method, object, accept, skip, content } = self.request;
        let url = object.url(base, &location.repository)?;
        let known = lock(&self.endpoint.authorization).clone();
        let mut request = Request {
            method: method.clone(),
            authorization: known.as_deref(),
            skip,
            payload: content.map(Payload::Content),
            ..Request::get(url, accept, location.insecure, self.until)
        };
        let response = http.send(&request)?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let login = self.endpoint.login(self.context).map_err(Fault::permanent)?;
        let values = response.headers().get_all(WWW_AUTHENTICATE);
        let values = values.iter().filter_map(|value| value.to_str().ok());
        let has_password = matches!(login, Some(Login::Password { .. }));
        let Some(challenge) = Challenge::select(values, has_password) else { return Ok(response) };
        // The next request gets the connection of this answer.
        drop(response);
        let fresh = self.authorize(&request, &challenge, login.as_ref())?;
        request.authorization = Some(&fresh);
        let response = http.send(&request)?;
        *lock(&self.endpoint.authorization) = Some(fresh);
        Ok(response)
    }

    /// The `Authorization` that answers a challenge.
    fn authorize(
        &self,
        refused: &Request<'_>,
        challenge: &Challenge,
        login: Option<&Login>,
    ) -> Result<String, Fault> {
        match (challenge, login) {
            (Challenge::Basic, Some(Login::Password { user, password })) => {
                Ok(auth::basic(user, password))
            }
            (Challenge::Basic, _) => Err(Fault::permanent(Error::new("no password"))),
            (Challenge::Bearer { realm, service }, _) => {
                let scopes = self.endpoint.scopes.as_slice();
                let (realm, service) = (realm.as_deref(), service.as_deref());
                let request = TokenRequest { realm, service, scopes, login, refused };
                request.send(&self.context.http, &self.context.cancel)
            }
        }
    }

    fn refusal(&self, response: Response, has_login: bool) -> Fault {
        let (method, until, cancel) = (self.request.method, self.until, &self.context.cancel);
        let writes = self.endpoint.writes;
        refusal(response, &Refused { method, has_login, writes, until, cancel })
    }
}
