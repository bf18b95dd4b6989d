//! What a registry asks for before it answers: `WWW-Authenticate` (RFC 9110) and the token service
//! of the distribution project's auth documents.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jc_unshare::Error;
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use crate::cancel::Cancel;
use crate::credentials::Login;
use crate::http::{Fault, Request, Transport, failed, read_body, retry_after};

/// The most bytes that the answer of a token service may have.
const MAX_TOKEN: usize = 1 << 20;

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

/// The `Authorization` of basic authentication (RFC 7617).
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// Where a token comes from, and what it is for.
pub struct TokenRequest<'a> {
    /// The challenge that names the service.
    pub challenge: &'a Challenge,
    /// The access that is asked for; the scope of the challenge is not.
    pub scope: &'a str,
    /// The login at the registry; without one the token is anonymous.
    pub login: Option<&'a Login>,
    /// The request that the registry refused.
    pub refused: &'a Request<'a>,
}

/// Asks a token service for a token; the `Authorization` to send. A fault is transient where the
/// service may answer the next time.
pub fn bearer(
    http: &Transport,
    wanted: &TokenRequest<'_>,
    cancel: &Cancel,
) -> Result<String, Fault> {
    let lasting = |text: String| Fault::lasting(Error::new(text));
    let realm = wanted.challenge.get("realm");
    let realm = realm
        .ok_or_else(|| lasting("the registry's challenge names no token service".to_owned()))?;
    let mut url = Url::parse(realm)
        .map_err(|e| lasting(format!("the registry's token service {realm:?}: {e}")))?;
    let mut query: Vec<(&str, &str)> = Vec::new();
    query.extend(wanted.challenge.get("service").map(|service| ("service", service)));
    query.push(("scope", wanted.scope));
    let basic = match wanted.login {
        Some(Login::Password { user, password }) => Some(basic(user, password)),
        _ => None,
    };
    let Request { insecure, until, .. } = *wanted.refused;
    let mut request = Request::get(url.clone(), "application/json", insecure, until);
    request.named_by = Some(http.zone(&wanted.refused.url));
    match wanted.login {
        // OAuth 2 (RFC 6749, 6), as the distribution project's auth/oauth.md has it.
        Some(Login::Identity(token)) => {
            query.extend([
                ("grant_type", "refresh_token"),
                ("client_id", "jc-pull"),
                ("refresh_token", token.as_str()),
            ]);
            request.method = Method::POST;
            request.form = Some(form(&query));
        }
        _ => {
            url.query_pairs_mut().extend_pairs(&query);
            request.url = url.clone();
            request.authorization = basic.as_deref();
        }
    }
    let mut response = http.send(&request)?;
    let (method, status) = (request.method, response.status());
    if !status.is_success() {
        let error = failed(&method, &url, status);
        let error = match (status, wanted.login) {
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, Some(_)) => {
                error.hint("user and password, or token, are not accepted")
            }
            _ => error,
        };
        return Err(Fault::refused(error, status, retry_after(&response)));
    }
    let body = read_body(&mut response, MAX_TOKEN, until, cancel)?;
    let bad = |why: &str| Fault::lasting(failed(&method, &url, why));
    let token: Token = serde_json::from_slice(&body).map_err(|_| bad("not a token"))?;
    match token.token.or(token.access_token).filter(|t| !t.is_empty()) {
        Some(token) => Ok(format!("Bearer {token}")),
        None => Err(bad("no token in the answer")),
    }
}

/// `application/x-www-form-urlencoded`, as a URL's query is.
fn form(pairs: &[(&str, &str)]) -> String {
    let Ok(mut url) = Url::parse("http://form/") else { return String::new() };
    url.query_pairs_mut().extend_pairs(pairs);
    url.query().unwrap_or_default().to_owned()
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

    #[test]
    fn a_login_is_encoded() {
        assert_eq!(basic("Aladdin", "open sesame"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(form(&[("a", "b c&d"), ("e", "ü")]), "a=b+c%26d&e=%C3%BC");
    }
}
