//! What went wrong on the network, in words.

use std::error::Error as StdError;
use std::fmt::Display;
use std::io;
use std::time::Duration;

use jc_unshare::{Error, strerror};
use reqwest::{Method, StatusCode, Url};

use super::zone::Withheld;

/// An attempt that failed.
#[derive(Debug)]
pub struct Fault {
    /// The line for the user.
    pub error: Error,
    /// Whether another attempt may go better.
    pub transient: bool,
    /// Whether the server speaks TLS, if that has become clear.
    pub speaks_tls: Option<bool>,
    /// The status of an answer that is no success.
    pub status: Option<StatusCode>,
    /// The pause that the server asks for.
    pub retry_after: Option<Duration>,
}

impl Fault {
    /// A fault that stays.
    pub fn lasting(error: Error) -> Self {
        Self { error, transient: false, speaks_tls: None, status: None, retry_after: None }
    }

    /// A fault that another attempt may not meet.
    pub fn passing(error: Error) -> Self {
        Self { transient: true, ..Self::lasting(error) }
    }

    /// A host that a registry may not name.
    pub fn withheld(error: Error) -> Self {
        Self::lasting(error.hint("--insecure allows a registry to name any host"))
    }

    /// An answer that is no success.
    pub fn refused(error: Error, status: StatusCode, retry_after: Option<Duration>) -> Self {
        // The statuses with which a server may answer otherwise the next time.
        let transient = matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504);
        Self { transient, status: Some(status), retry_after, ..Self::lasting(error) }
    }

    /// Of a request that was sent.
    pub fn of(method: &Method, url: &Url, cause: &reqwest::Error) -> Self {
        let chain =
            || std::iter::successors(Some(cause as &(dyn StdError + 'static)), |e| inner(*e));
        let tls = chain().find_map(|e| e.downcast_ref::<rustls::Error>());
        if let Some(withheld) = chain().find_map(|e| e.downcast_ref::<Withheld>()) {
            return Self::withheld(failed(method, url, withheld));
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
