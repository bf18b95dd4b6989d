//! Failed attempts, and their messages.

use std::error::Error as StdError;
use std::fmt::Display;
use std::io;
use std::time::Duration;

use jc_unshare::{Error, strerror};
use reqwest::{Method, StatusCode, Url};

use super::zone::Forbidden;

#[derive(Debug)]
pub struct Fault {
    /// The error for the user.
    pub error: Error,
    /// Whether another attempt may succeed.
    pub transient: bool,
    /// Whether the server speaks TLS, if that is known.
    pub speaks_tls: Option<bool>,
    pub status: Option<StatusCode>,
    /// The pause that the server asks for.
    pub retry_after: Option<Duration>,
}

impl Fault {
    /// A fault of every attempt.
    pub fn permanent(error: Error) -> Self {
        Self { error, transient: false, speaks_tls: None, status: None, retry_after: None }
    }

    /// A fault of this attempt.
    pub fn temporary(error: Error) -> Self {
        Self { transient: true, ..Self::permanent(error) }
    }

    /// A host that a registry may not name.
    pub fn forbidden(error: Error) -> Self {
        Self::permanent(error.hint("--insecure allows a registry to name any host"))
    }

    /// An answer that is no success.
    pub fn refused(error: Error, status: StatusCode, retry_after: Option<Duration>) -> Self {
        // The statuses after which a server may answer another attempt.
        let transient = matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504);
        Self { transient, status: Some(status), retry_after, ..Self::permanent(error) }
    }

    /// The fault of a request that was sent.
    pub fn of(method: &Method, url: &Url, cause: &reqwest::Error) -> Self {
        let chain =
            || std::iter::successors(Some(cause as &(dyn StdError + 'static)), |e| inner(*e));
        let tls = chain().find_map(|e| e.downcast_ref::<rustls::Error>());
        if let Some(forbidden) = chain().find_map(|e| e.downcast_ref::<Forbidden>()) {
            return Self::forbidden(failed(method, url, forbidden));
        }
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
            return Self { transient, ..Self::permanent(error) };
        }
        let why = match root_cause(cause) {
            _ if cause.is_timeout() => "no answer in time".to_owned(),
            why => why,
        };
        let error = failed(method, url, why);
        match tls {
            Some(rustls::Error::InvalidMessage(_)) => Self {
                speaks_tls: Some(false),
                ..Self::permanent(
                    error.hint("if the registry speaks plain http, --insecure allows that"),
                )
            },
            Some(_) => Self {
                speaks_tls: Some(true),
                ..Self::permanent(error.hint("--ca or certs.d can name a certificate to trust"))
            },
            None => Self { transient: !cause.is_builder(), ..Self::permanent(error) },
        }
    }
}

/// `get URL: why`. The query is left out, since it may have a signature.
pub fn failed(method: &Method, url: &Url, why: impl Display) -> Error {
    let mut url = url.clone();
    url.set_query(None);
    Error::new(format_args!("{} {url}: {why}", method.as_str().to_ascii_lowercase()))
}

/// The innermost error, which has the cause.
pub fn root_cause(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = inner(cause) {
        cause = inner;
    }
    cause.downcast_ref::<io::Error>().map_or_else(|| cause.to_string(), strerror)
}

/// The error inside of an error. An `io::Error` does not return it as its source.
fn inner<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}
