//! The transport: one pool of connections, redirects, and what may go over plain http.

use std::error::Error as StdError;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::OnceLock;
use std::time::Duration;

use jc_unshare::{Error, Result, strerror};
use reqwest::blocking::{Client, Response};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, Url, redirect};
use rustls::{ClientConfig, RootCertStore};

use crate::name::is_loopback;

/// The longest wait for a connection, and for more bytes on one.
const PATIENCE: Duration = Duration::from_secs(30);
/// More redirects than this are a loop.
const MAX_REDIRECTS: usize = 10;

/// Makes requests. Certificates are loaded with the first one that needs them.
pub struct Transport {
    insecure: bool,
    plain: OnceLock<Client>,
    tls: OnceLock<Client>,
}

/// What to ask for.
pub struct Request<'a> {
    /// GET or HEAD.
    pub method: Method,
    /// Where.
    pub url: Url,
    /// The media types that will do.
    pub accept: &'a str,
    /// The `Authorization`, which goes to the URL's own host only.
    pub authorization: Option<&'a str>,
}

impl Transport {
    /// With `insecure`, plain http may go to any host.
    pub fn new(insecure: bool) -> Self {
        Self { insecure, plain: OnceLock::new(), tls: OnceLock::new() }
    }

    /// The schemes in which to try a host: plain http without asking is for loopback only.
    pub fn schemes(&self, authority: &str) -> &'static [&'static str] {
        match (is_loopback(authority), self.insecure) {
            (true, _) => &["http", "https"],
            (false, true) => &["https", "http"],
            (false, false) => &["https"],
        }
    }

    /// Sends, and follows redirects. Any HTTP status is an answer; errors are those of the network.
    pub fn send(&self, request: &Request<'_>) -> Result<Response> {
        let mut url = request.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let authorization = request.authorization.filter(|_| same_origin(&url, &request.url));
            let response = self.send_once(request, url.clone(), authorization)?;
            let Some(next) = redirect_target(&response)? else { return Ok(response) };
            url = next;
        }
        Err(failed(&request.method, &request.url, "too many redirects"))
    }

    fn send_once(
        &self,
        request: &Request<'_>,
        url: Url,
        authorization: Option<&str>,
    ) -> Result<Response> {
        let method = &request.method;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, header(request.accept)?);
        if let Some(authorization) = authorization {
            let mut value = header(authorization)?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let sent = self.client(&url)?.request(method.clone(), url.clone()).headers(headers).send();
        sent.map_err(|e| {
            let error = failed(method, &url, root_cause(&e));
            if is_not_tls(&e) {
                return error.hint("if the registry speaks plain http, --insecure allows that");
            }
            error
        })
    }

    fn client(&self, url: &Url) -> Result<&Client> {
        match url.scheme() {
            "https" => once(&self.tls, || build(native_roots()?)),
            "http" if self.insecure || is_loopback(url.host_str().unwrap_or_default()) => {
                // reqwest wants a TLS configuration even where there will be no TLS.
                once(&self.plain, || build(RootCertStore::empty()))
            }
            "http" => Err(failed(&Method::GET, url, "plain http is not allowed")
                .hint("--insecure allows it for hosts other than this one")),
            _ => Err(failed(&Method::GET, url, "neither http nor https")),
        }
    }
}

/// As `OnceLock::get_or_try_init`, which is not stable yet; a race costs one client too many.
fn once(cell: &OnceLock<Client>, make: impl FnOnce() -> Result<Client>) -> Result<&Client> {
    if let Some(client) = cell.get() {
        return Ok(client);
    }
    let client = make()?;
    Ok(cell.get_or_init(|| client))
}

fn build(roots: RootCertStore) -> Result<Client> {
    let provider = rustls::crypto::ring::default_provider();
    let tls = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::new(format_args!("tls: {e}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // RFC 6761: localhost is this machine, whatever a name server says.
    let localhost: [SocketAddr; 2] =
        [(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()];
    Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("jc-pull/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .resolve_to_addrs("localhost", &localhost)
        .connect_timeout(PATIENCE)
        .timeout(PATIENCE)
        .build()
        .map_err(|e| Error::new(format_args!("http client: {}", root_cause(&e))))
}

fn native_roots() -> Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added > 0 {
        return Ok(roots);
    }
    let why = found.errors.first().map_or_else(|| "none found".to_owned(), ToString::to_string);
    Err(Error::new(format_args!("tls: the system's CA certificates: {why}"))
        .hint("install ca-certificates"))
}

fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme()
        && a.host_str() == b.host_str()
        && a.port_or_known_default() == b.port_or_known_default()
}

fn redirect_target(response: &Response) -> Result<Option<Url>> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let bad = || failed(&Method::GET, response.url(), "a redirect to nowhere");
    let location =
        response.headers().get(LOCATION).and_then(|v| v.to_str().ok()).ok_or_else(bad)?;
    let next = response.url().join(location).map_err(|_| bad())?;
    if response.url().scheme() == "https" && next.scheme() != "https" {
        return Err(failed(&Method::GET, response.url(), "a redirect from https to plain http"));
    }
    Ok(Some(next))
}

fn header(text: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(text).map_err(|_| Error::new("a header with control characters"))
}

/// `get URL: why`, without the query: it may hold a signature.
pub fn failed(method: &Method, url: &Url, why: impl std::fmt::Display) -> Error {
    let mut url = url.clone();
    url.set_query(None);
    Error::new(format_args!("{} {url}: {why}", method.as_str().to_ascii_lowercase()))
}

/// The innermost error, which is the one that says something.
pub fn root_cause(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = inner(cause) {
        cause = inner;
    }
    cause.downcast_ref::<io::Error>().map_or_else(|| cause.to_string(), strerror)
}

/// What is wrapped; an `io::Error` does not give that as its source.
fn inner<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

/// Whether the other side answered a TLS greeting with something else.
fn is_not_tls(error: &(dyn StdError + 'static)) -> bool {
    std::iter::successors(Some(error), |e| inner(*e))
        .any(|e| matches!(e.downcast_ref(), Some(rustls::Error::InvalidMessage(_))))
}
