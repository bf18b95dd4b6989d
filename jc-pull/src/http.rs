//! The transport: one pool of connections, retries, redirects, and what may go over plain http.

mod fault;
mod retry;
mod tls;

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jc_unshare::{Error, Result, strerror};
use reqwest::blocking::{Client, Response};
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RANGE,
};
use reqwest::{Method, Url, redirect};

use crate::cancel::Cancel;
use crate::name::is_loopback;

pub use fault::{Fault, failed, root_cause};
pub use retry::{Retry, is_transient, retry_after};
use tls::HostCerts;

/// More redirects than this are a loop.
const MAX_REDIRECTS: usize = 10;

/// How requests are made.
#[derive(Clone, Debug)]
pub struct Options {
    /// The longest wait for a connection, for an answer, and for more bytes of one.
    pub timeout: Duration,
    /// How often something transient is tried again.
    pub retries: u32,
    /// Authorities to trust besides the system's: files of PEM.
    pub authorities: Vec<PathBuf>,
}

/// Makes requests. Certificates are loaded with the first one that needs them.
pub struct Transport {
    options: Options,
    clients: Mutex<HashMap<Kind, Client>>,
}

/// Requests of one kind share their connections.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Kind {
    tls: bool,
    /// Not through a proxy: a proxy's loopback is another machine's.
    direct: bool,
    /// Whether the other side has to prove who it is.
    verified: bool,
    /// A host that `certs.d` has something for.
    host: Option<String>,
}

/// What to ask for.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// GET, HEAD or POST.
    pub method: Method,
    /// Where.
    pub url: Url,
    /// The media types that will do.
    pub accept: &'a str,
    /// The `Authorization`, which goes to the URL's own host only.
    pub authorization: Option<&'a str>,
    /// How many bytes of the content are there already.
    pub skip: u64,
    /// A form to send.
    pub form: Option<String>,
    /// Whether plain http and unknown certificates will do.
    pub insecure: bool,
    /// Whether to try again what may go better then.
    pub again: bool,
}

impl<'a> Request<'a> {
    /// A plain GET.
    pub fn get(url: Url, accept: &'a str, insecure: bool) -> Self {
        let method = Method::GET;
        let (authorization, form) = (None, None);
        Self { method, url, accept, authorization, skip: 0, form, insecure, again: true }
    }
}

impl Transport {
    /// No connection is made yet.
    pub fn new(options: Options) -> Self {
        Self { options, clients: Mutex::default() }
    }

    /// How requests are made.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Sends, again where that may help, and follows redirects. Any HTTP status is an answer; errors
    /// are those of the network.
    pub fn send(&self, request: &Request<'_>, cancel: &Cancel) -> Result<Response, Fault> {
        let mut retry = Retry::new(if request.again { self.options.retries } else { 0 });
        loop {
            let outcome = self.send_once(request);
            let asked = match &outcome {
                Ok(response) if is_transient(response.status()) => retry_after(response),
                Err(fault) if fault.transient => None,
                _ => return outcome,
            };
            let Some(pause) = retry.next(asked) else { return outcome };
            let given_up = |e| Fault::lasting(Error::new(strerror(&e)));
            cancel.sleep(pause).map_err(given_up)?;
        }
    }

    fn send_once(&self, request: &Request<'_>) -> Result<Response, Fault> {
        let mut url = request.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let authorization = request.authorization.filter(|_| same_origin(&url, &request.url));
            let response = self.hop(request, url.clone(), authorization)?;
            if request.form.is_some() {
                // It holds a secret, and goes nowhere else.
                return Ok(response);
            }
            let Some(next) = redirect_target(&response).map_err(Fault::lasting)? else {
                return Ok(response);
            };
            url = next;
        }
        Err(Fault::lasting(failed(&request.method, &request.url, "too many redirects")))
    }

    fn hop(
        &self,
        request: &Request<'_>,
        url: Url,
        authorization: Option<&str>,
    ) -> Result<Response, Fault> {
        let method = &request.method;
        let headers = headers(request, authorization).map_err(Fault::lasting)?;
        let client = self.client(&url, request.insecure).map_err(Fault::lasting)?;
        let mut builder = client.request(method.clone(), url.clone()).headers(headers);
        if let Some(form) = &request.form {
            builder = builder.body(form.clone());
        }
        builder.send().map_err(|e| Fault::of(method, &url, &e))
    }

    fn client(&self, url: &Url, insecure: bool) -> Result<Client> {
        let direct = is_loopback(url.host_str().unwrap_or_default());
        let kind = match url.scheme() {
            "https" => {
                let authority = authority(url);
                let host = HostCerts::find(&authority)?.map(|_| authority);
                Kind { tls: true, direct, verified: !insecure, host }
            }
            "http" if insecure || direct => Kind { tls: false, direct, verified: true, host: None },
            "http" => {
                return Err(failed(&Method::GET, url, "plain http is not allowed")
                    .hint("--insecure allows it for hosts other than this one"));
            }
            _ => return Err(failed(&Method::GET, url, "neither http nor https")),
        };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&kind) {
            return Ok(client.clone());
        }
        let client = self.build(&kind)?;
        clients.insert(kind, client.clone());
        Ok(client)
    }

    fn build(&self, kind: &Kind) -> Result<Client> {
        let host = kind.host.as_deref().map(HostCerts::find).transpose()?.flatten();
        // reqwest wants a TLS configuration even where there will be no TLS.
        let extra = if kind.tls { self.options.authorities.as_slice() } else { &[] };
        let tls = tls::config(kind.tls, extra, host.as_ref(), kind.verified)?;
        // RFC 6761: localhost is this machine, whatever a name server says.
        let localhost: [SocketAddr; 2] =
            [(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()];
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("jc-pull/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .resolve_to_addrs("localhost", &localhost)
            .connect_timeout(self.options.timeout)
            .timeout(self.options.timeout);
        if kind.direct {
            builder = builder.no_proxy();
        }
        builder.build().map_err(|e| Error::new(format_args!("http client: {}", root_cause(&e))))
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
    if request.form.is_some() {
        headers.insert(CONTENT_TYPE, header("application/x-www-form-urlencoded")?);
    }
    Ok(headers)
}

/// `host[:port]`, as the URL has it.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Whether both are the same server.
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

fn header(text: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(text).map_err(|_| Error::new("a header with control characters"))
}
