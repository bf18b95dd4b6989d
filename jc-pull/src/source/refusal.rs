//! Refusals of registries (distribution-spec, "Error Codes").

use std::time::Instant;

use reqwest::{Method, StatusCode};
use serde::Deserialize;

use crate::cancel::Cancel;
use crate::http::{Fault, Response, failed, read_body, retry_after};

/// The most bytes of an explanation.
const MAX_EXPLANATION: usize = 64 << 10;

#[derive(Default, Deserialize)]
struct Body {
    #[serde(default)]
    errors: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// A request that was refused.
pub struct Refused<'a> {
    pub method: &'a Method,
    /// Whether there is a login for the registry.
    pub has_login: bool,
    /// Whether the request would have changed the registry.
    pub writes: bool,
    /// The end of the time for the explanation.
    pub until: Instant,
    pub cancel: &'a Cancel,
}

/// The fault for an answer that is no success.
pub fn refusal(mut response: Response, refused: &Refused<'_>) -> Fault {
    let Refused { method, has_login, writes, until, cancel } = *refused;
    let (url, status) = (response.url().clone(), response.status());
    let pause = retry_after(&response);
    // Without an explanation, the error has the status alone.
    let body = read_body(&mut response, MAX_EXPLANATION, until, cancel).unwrap_or_default();
    let body: Body = serde_json::from_slice(&body).unwrap_or_default();
    let why = match body.errors.first() {
        Some(e) if !e.message.is_empty() => format!("{status}: {}", e.message),
        Some(e) if !e.code.is_empty() => format!("{status}: {}", e.code),
        _ => status.to_string(),
    };
    let error = failed(method, &url, why);
    let error = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if writes && has_login => {
            error.hint("this login may not write to the repository")
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if writes => {
            error.hint("a push needs a login: see --authfile and --username")
        }
        StatusCode::PAYLOAD_TOO_LARGE => {
            error.hint("a proxy in front of the registry limits the size of requests")
        }
        StatusCode::METHOD_NOT_ALLOWED if writes => error.hint("the registry is read-only"),
        StatusCode::NOT_FOUND if writes => error,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if has_login => {
            error.hint("the image does not exist, or this login has no access to it")
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            error.hint("the image does not exist, or needs a login: see --authfile")
        }
        StatusCode::NOT_FOUND => error.hint("no such image or tag"),
        StatusCode::TOO_MANY_REQUESTS => {
            let wait =
                pause.map_or_else(|| "wait".to_owned(), |p| format!("wait {} s", p.as_secs()));
            let limit = match url.host_str() {
                Some("registry-1.docker.io") => {
                    "Docker Hub limits how much one address or account pulls"
                }
                _ => "the registry limits how much one client asks for",
            };
            error.hint(format_args!(
                "{limit}: log in (--username, --authfile), {wait}, or use a mirror (--mirror)"
            ))
        }
        _ => error,
    };
    Fault::refused(error, status, pause)
}
