//! What a registry asks for before it answers: `WWW-Authenticate` (RFC 9110) and the token service
//! of the distribution project's auth documents.

use jc_unshare::{Error, Result};
use reqwest::Method;
use reqwest::Url;
use serde::Deserialize;

use crate::http::{Request, Transport, failed};

/// A challenge: its scheme in lower case and its parameters.
#[derive(Debug, Eq, PartialEq)]
pub struct Challenge {
    /// `bearer`, `basic`.
    pub scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// Reads a `WWW-Authenticate` value: one or several challenges.
    pub fn parse(text: &str) -> Vec<Self> {
        let mut challenges: Vec<Self> = Vec::new();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let end = rest.find([' ', ',', '=']).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            let after = after.trim_start_matches(' ');
            if let Some(value) = after.strip_prefix('=') {
                let (value, left) = read_value(value.trim_start_matches(' '));
                if let Some(last) = challenges.last_mut() {
                    last.parameters.push((word.to_ascii_lowercase(), value));
                }
                rest = left;
            } else {
                if !word.is_empty() {
                    let scheme = word.to_ascii_lowercase();
                    challenges.push(Self { scheme, parameters: Vec::new() });
                }
                rest = after;
            }
            rest = rest.trim_start_matches([' ', ',', '\t']);
        }
        challenges
    }

    /// The parameter of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// A token or a quoted string, and what follows it.
fn read_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = text.split_at(text.find([',', ' ']).unwrap_or(text.len()));
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, quoted.get(at + 1..).unwrap_or_default()),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

/// The token service's answer; old services have only `token`, OAuth ones only `access_token`.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// Asks the challenge's token service for an anonymous token; the `Authorization` to send.
pub fn anonymous(http: &Transport, challenge: &Challenge, scope: &str) -> Result<String> {
    let realm = challenge
        .get("realm")
        .ok_or_else(|| Error::new("the registry's challenge names no token service"))?;
    let mut url = Url::parse(realm)
        .map_err(|e| Error::new(format_args!("the registry's token service {realm:?}: {e}")))?;
    if let Some(service) = challenge.get("service") {
        url.query_pairs_mut().append_pair("service", service);
    }
    url.query_pairs_mut().append_pair("scope", challenge.get("scope").unwrap_or(scope));
    let request = Request {
        method: Method::GET,
        url: url.clone(),
        accept: "application/json",
        authorization: None,
    };
    let response = http.send(&request)?;
    let status = response.status();
    if !status.is_success() {
        return Err(failed(&Method::GET, &url, status));
    }
    let token: Token = response
        .bytes()
        .ok()
        .and_then(|body| serde_json::from_slice(&body).ok())
        .ok_or_else(|| failed(&Method::GET, &url, "not a token"))?;
    match token.token.or(token.access_token).filter(|t| !t.is_empty()) {
        Some(token) => Ok(format!("Bearer {token}")),
        None => Err(failed(&Method::GET, &url, "no token in the answer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let bearer = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull,push""#;
        let found = Challenge::parse(bearer);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].scheme, "bearer");
        assert_eq!(found[0].get("realm"), Some("https://auth.docker.io/token"));
        assert_eq!(found[0].get("scope"), Some("repository:library/alpine:pull,push"));
        for (text, schemes) in [
            (r#"Basic realm="x""#, vec!["basic"]),
            (
                r#"Negotiate, Basic realm="a, b", Bearer realm=c"#,
                vec!["negotiate", "basic", "bearer"],
            ),
            ("", vec![]),
            (r#"Bearer realm="unclosed"#, vec!["bearer"]),
            ("= , =,", vec![]),
        ] {
            let found: Vec<String> = Challenge::parse(text).into_iter().map(|c| c.scheme).collect();
            assert_eq!(found, schemes, "{text}");
        }
        assert_eq!(Challenge::parse(r#"Basic realm="a \"b\"""#)[0].get("realm"), Some(r#"a "b""#));
    }
}
