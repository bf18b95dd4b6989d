//! What a registry says when it says no (distribution-spec, "Error Codes").

use std::io::Read;

use jc_unshare::Error;
use reqwest::blocking::Response;
use reqwest::{Method, StatusCode};
use serde::Deserialize;

use crate::http::{failed, retry_after};

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

/// The error for a response that is none of success. `known` says that a login was sent.
pub fn refusal(method: &Method, response: Response, known: bool) -> Error {
    let (url, status) = (response.url().clone(), response.status());
    let pause = retry_after(&response);
    let mut body = Vec::new();
    // The status alone is told if the explanation cannot be had.
    let _: std::io::Result<usize> = response.take(64 << 10).read_to_end(&mut body);
    let body: Body = serde_json::from_slice(&body).unwrap_or_default();
    let why = match body.errors.first() {
        Some(e) if !e.message.is_empty() => format!("{status}: {}", e.message),
        Some(e) if !e.code.is_empty() => format!("{status}: {}", e.code),
        _ => status.to_string(),
    };
    let error = failed(method, &url, why);
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if known => {
            error.hint("the image does not exist, or this login may not have it")
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            error.hint("the image does not exist, or may not be had anonymously: see --authfile")
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
    }
}
