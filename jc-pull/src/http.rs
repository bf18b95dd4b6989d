//! HTTP requests: connections, redirects, the addresses that a registry may name, and the hosts that need
//! TLS.

mod body;
mod fault;
mod payload;
mod pool;
mod retry;
mod tls;
mod zone;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jc_unshare::{Error, Result};
use reqwest::blocking::Client;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RANGE,
};
use reqwest::{Method, Url, redirect};

use jc_unshare::image::is_loopback;

pub use body::read_body;
pub use fault::{Fault, failed, root_cause};
pub use payload::{Content, Payload};
pub use pool::Response;
use pool::{ClientKind, Lease, Pool, Session};
pub use retry::{Retry, report_pauses, retry_after};
use rustls::ClientConfig;
use tls::HostCerts;
pub use zone::Zone;
use zone::{Forbidden, Resolver, Zones};

/// The most redirects of one request.
const MAX_REDIRECTS: usize = 10;

/// The time for an attempt to get an answer, in multiples of [`Options::timeout`]. The last wait may
/// exceed it.
const WHOLE_ATTEMPT: u32 = 4;

/// The options of all requests.
#[derive(Clone, Debug)]
pub struct Options {
    /// The longest wait for a connection, for an answer, and for more bytes.
    pub timeout: Duration,
    /// The attempts at one object after the first.
    pub retries: u32,
    /// Files (PEM) of certificate authorities to trust in addition to the system's.
    pub authorities: Vec<PathBuf>,
}

impl Options {
    /// The longest time for one attempt.
    pub fn patience(&self) -> Duration {
        self.timeout.saturating_mul(WHOLE_ATTEMPT)
    }

    /// The end of an attempt that starts now.
    pub fn deadline(&self) -> Instant {
        let now = Instant::now();
        now.checked_add(self.patience()).unwrap_or(now)
    }
}

/// Sends requests. The first request that needs certificates loads them.
pub struct Http {
    options: Options,
    pool: Pool,
    zones: Arc<Zones>,
}

/// A request to one URL, and the rules for its redirects.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    pub method: Method,
    pub url: Url,
    /// The media types to accept.
    pub accept: &'a str,
    /// The `Authorization`. Only the host of `url` gets it.
    pub authorization: Option<&'a str>,
    /// The first byte to send.
    pub skip: u64,
    /// The body to send.
    pub payload: Option<Payload<'a>>,
    /// Whether plain http, unknown certificates and all addresses are allowed.
    pub insecure: bool,
    /// The zone of the registry that named the host. Absent if the caller named the host.
    pub named_by: Option<Zone>,
    /// The end of the time in which redirects are followed.
    pub until: Instant,
}

impl<'a> Request<'a> {
    /// A GET without authorization.
    pub fn get(url: Url, accept: &'a str, insecure: bool, until: Instant) -> Self {
        let method = Method::GET;
        let (authorization, payload, named_by) = (None, None, None);
        Self { method, url, accept, authorization, skip: 0, payload, insecure, named_by, until }
    }
}

impl Http {
    pub fn new(options: Options) -> Self {
        Self { options, pool: Pool::default(), zones: Arc::default() }
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The zone of the host of a URL, as far as it is known.
    pub fn zone(&self, url: &Url) -> Zone {
        self.zones.of(url)
    }

    /// Makes one attempt, and follows redirects. Every HTTP status is an answer. Faults are those of the
    /// network, of too many or forbidden redirects, and of an address that the registry may not name.
    pub fn send(&self, request: &Request<'_>) -> Result<Response, Fault> {
        let mut url = request.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            if Instant::now() > request.until {
                return Err(Fault::temporary(failed(&request.method, &url, "too slow")));
            }
            let authorization = request.authorization.filter(|_| same_origin(&url, &request.url));
            let response = self.hop(request, url.clone(), authorization)?;
            if matches!(request.payload, Some(Payload::Form(_))) {
                // A form has a secret, and no other host gets it.
                return Ok(response);
            }
            let Some(next) = redirect_target(&response).map_err(Fault::permanent)? else {
                return Ok(response);
            };
            if request.payload.is_some() {
                check_upload_redirect(request, &response, &next).map_err(Fault::permanent)?;
            }
            url = next;
        }
        Err(Fault::permanent(failed(&request.method, &request.url, "too many redirects")))
    }

    /// The limit for addresses of the host of `url`. The result is `None` if all are allowed.
    fn limit(&self, request: &Request<'_>, url: &Url) -> Option<Zone> {
        let by_redirect = || {
            let redirected = !same_origin(url, &request.url);
            redirected.then(|| self.zones.of(&request.url))
        };
        let limit = request.named_by.or_else(by_redirect);
        limit.filter(|zone| *zone < Zone::Loopback && !request.insecure)
    }

    fn hop(
        &self,
        request: &Request<'_>,
        url: Url,
        authorization: Option<&str>,
    ) -> Result<Response, Fault> {
        let method = &request.method;
        let limit = self.limit(request, &url);
        if let Some(zone) = zone::literal(&url).filter(|zone| limit.is_some_and(|l| *zone > l)) {
            return Err(Fault::forbidden(failed(method, &url, Forbidden(zone))));
        }
        let headers = headers(request, authorization).map_err(Fault::permanent)?;
        let lease = self.lease(&url, request.insecure, limit).map_err(Fault::permanent)?;
        let mut builder =
            lease.session.client.request(method.clone(), url.clone()).headers(headers);
        match &request.payload {
            Some(Payload::Form(form)) => builder = builder.body(form.clone()),
            // The client's own limit is for the headers of an answer, and the content comes before these.
            Some(Payload::Content(content)) => {
                builder = builder.body(content.bytes.to_vec()).timeout(self.options.patience());
            }
            None => {}
        }
        let answer = builder.send().map_err(|e| Fault::of(method, &url, &e))?;
        Ok(Response::new(answer, lease))
    }

    /// A client for one request to `url`.
    fn lease(&self, url: &Url, insecure: bool, limit: Option<Zone>) -> Result<Lease> {
        let direct = is_loopback(url.host_str().unwrap_or_default());
        let kind = match url.scheme() {
            "https" => {
                let authority = authority(url);
                let host = HostCerts::find(&authority)?.map(|_| authority);
                ClientKind { tls: true, direct, verified: !insecure, host, limit }
            }
            "http" if insecure || direct => {
                ClientKind { tls: false, direct, verified: true, host: None, limit }
            }
            "http" => {
                return Err(failed(&Method::GET, url, "plain http is not allowed")
                    .hint("--insecure allows it for hosts other than this one"));
            }
            _ => return Err(failed(&Method::GET, url, "neither http nor https")),
        };
        let lease = self.pool.lease(
            kind,
            |kind| {
                let host = kind.host.as_deref().map(HostCerts::find).transpose()?.flatten();
                // reqwest needs a TLS configuration for plain http, too.
                let extra = if kind.tls { self.options.authorities.as_slice() } else { &[] };
                tls::config(kind.tls, extra, host.as_ref(), kind.verified)
            },
            |kind, tls| self.connect(kind, tls),
        )?;
        lease.session.resolver.limit(url);
        Ok(lease)
    }

    /// A client that has no connection yet.
    fn connect(&self, kind: &ClientKind, tls: ClientConfig) -> Result<Session> {
        let resolver = Resolver::new(kind.limit, Arc::clone(&self.zones));
        // RFC 6761: localhost is this machine, whatever a name server answers.
        let localhost: [SocketAddr; 2] =
            [(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()];
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("jc-pull/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .dns_resolver(Arc::new(resolver.clone()))
            .resolve_to_addrs("localhost", &localhost)
            .connect_timeout(self.options.timeout)
            .timeout(self.options.timeout);
        if kind.direct {
            builder = builder.no_proxy();
        }
        let failed = |e| Error::new(format_args!("http client: {}", root_cause(&e)));
        Ok(Session { client: builder.build().map_err(failed)?, resolver })
    }
}

fn headers(request: &Request<'_>, authorization: Option<&str>) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, header(request.accept)?);
    if let Some(authorization) = authorization {
        let mut value = header(authorization)?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    if request.skip > 0 {
        headers.insert(RANGE, header(&format!("bytes={}-", request.skip))?);
    }
    if let Some(payload) = &request.payload {
        headers.insert(CONTENT_TYPE, header(payload.media_type())?);
        if let Some(range) = payload.range() {
            headers.insert(CONTENT_RANGE, header(&range)?);
        }
    }
    Ok(headers)
}

/// `host[:port]` of a URL.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Whether two URLs have the same server.
pub fn same_origin(a: &Url, b: &Url) -> bool {
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

/// An error if a redirect would take the content of a request to another host, which the login is not for, or would
/// change the method.
fn check_upload_redirect(request: &Request<'_>, response: &Response, next: &Url) -> Result<()> {
    let method = &request.method;
    if !same_origin(&request.url, next) {
        let to = authority(next);
        return Err(failed(method, response.url(), format!("a redirect of an upload to {to}")));
    }
    match response.status().as_u16() {
        307 | 308 => Ok(()),
        _ => Err(failed(method, response.url(), "a redirect of an upload without its content")),
    }
}

fn header(text: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(text).map_err(|_| Error::new("a header with control characters"))
}
