//! What went wrong on the network, in words.

use std::error::Error as StdError;
use std::fmt::Display;
use std::io;

use jc_unshare::{Error, strerror};
use reqwest::{Method, StatusCode, Url};

/// A request that got no answer.
#[derive(Debug)]
pub struct Fault {
    /// What to say of it.
    pub error: Error,
    /// Whether another attempt may go better.
    pub transient: bool,
    /// What the other side speaks, if that has become clear.
    pub speaks_tls: Option<bool>,
    /// The status, if there was an answer, and it is no success.
    pub status: Option<StatusCode>,
}

impl Fault {
    /// One that stays.
    pub fn lasting(error: Error) -> Self {
        Self { error, transient: false, speaks_tls: None, status: None }
    }

    /// An answer that is no success.
    pub fn refused(error: Error, status: StatusCode) -> Self {
        Self { status: Some(status), ..Self::lasting(error) }
    }

    /// Of a request that was sent.
    pub fn of(method: &Method, url: &Url, cause: &reqwest::Error) -> Self {
        let chain =
            || std::iter::successors(Some(cause as &(dyn StdError + 'static)), |e| inner(*e));
        let tls = chain().find_map(|e| e.downcast_ref::<rustls::Error>());
        if chain().any(|e| e.to_string() == "dns error") {
            let host = url.host_str().unwrap_or_default();
            let (why, transient) = match root_cause(cause) {
                why if why.starts_with("no record") => ("no such host".to_owned(), false),
                why if why == "no connections available" => {
                    ("no name server answers".to_owned(), true)
                }
                why => (why, true),
            };
            let error = Error::new(format_args!("resolve {host}: {why}"));
            return Self { transient, ..Self::lasting(error) };
        }
        let why = match root_cause(cause) {
            _ if cause.is_timeout() => "no answer in time".to_owned(),
            why => why,
        };
        let error = failed(method, url, why);
        match tls {
            Some(rustls::Error::InvalidMessage(_)) => Self {
                speaks_tls: Some(false),
                ..Self::lasting(
                    error.hint("if the registry speaks plain http, --insecure allows that"),
                )
            },
            Some(_) => Self {
                speaks_tls: Some(true),
                ..Self::lasting(error.hint("--ca or certs.d can name a certificate to trust"))
            },
            None => Self { transient: !cause.is_builder(), ..Self::lasting(error) },
        }
    }
}

/// `get URL: why`, without the query: it may hold a signature.
pub fn failed(method: &Method, url: &Url, why: impl Display) -> Error {
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
