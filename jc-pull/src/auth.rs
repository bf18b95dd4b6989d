//! Replies to the challenges of registries: `WWW-Authenticate` (RFC 9110), and the token service of the
//! distribution project's auth documents.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_auth::parser::ChallengeParser;
use jc_unshare::Error;
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use crate::cancel::Cancel;
use crate::credentials::Login;
use crate::http::{Fault, Http, Payload, Request, Response, failed, read_body, retry_after};

/// The most bytes in an answer of a token service.
const MAX_TOKEN: usize = 1 << 20;

/// A challenge that this program can reply to.
#[derive(Debug, Eq, PartialEq)]
pub enum Challenge {
    /// A token of a service, at the URL `realm`.
    Bearer { realm: Option<String>, service: Option<String> },
    /// User and password (RFC 7617).
    Basic,
}

impl Challenge {
    /// Selects from the values of `WWW-Authenticate`: a token before a password, and a password only where
    /// there is one. If a value breaks the grammar, its challenges before the fault count.
    pub fn select<'a>(
        values: impl IntoIterator<Item = &'a str>,
        has_password: bool,
    ) -> Option<Self> {
        let mut is_basic = false;
        for challenge in
            values.into_iter().flat_map(|v| ChallengeParser::new(v).map_while(Result::ok))
        {
            if challenge.scheme.eq_ignore_ascii_case("bearer") {
                let get = |name: &str| {
                    let mut values = challenge.params.iter();
                    let (_, value) = values.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
                    Some(value.to_unescaped())
                };
                return Some(Self::Bearer { realm: get("realm"), service: get("service") });
            }
            is_basic |= challenge.scheme.eq_ignore_ascii_case("basic");
        }
        (is_basic && has_password).then_some(Self::Basic)
    }
}

/// The answer of a token service. Old services have only `token`, OAuth services only `access_token`.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// The `Authorization` of basic authentication (RFC 7617).
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// A question to a token service.
pub struct TokenRequest<'a> {
    pub realm: Option<&'a str>,
    pub service: Option<&'a str>,
    /// The kinds of access to ask for. The scope in the challenge may be larger.
    pub scopes: &'a [String],
    /// The login at the registry. A token without a login is anonymous.
    pub login: Option<&'a Login>,
    /// The request that the registry refused.
    pub refused: &'a Request<'a>,
}

impl TokenRequest<'_> {
    /// Asks for a token, and returns the `Authorization` with the token. A fault is transient if the
    /// service may answer the next request.
    pub fn send(&self, http: &Http, cancel: &Cancel) -> Result<String, Fault> {
        let permanent = |text: String| Fault::permanent(Error::new(text));
        let no_realm = || permanent("the registry's challenge names no token service".to_owned());
        let realm = self.realm.ok_or_else(no_realm)?;
        let url = Url::parse(realm)
            .map_err(|e| permanent(format!("the registry's token service {realm:?}: {e}")))?;
        let basic = match self.login {
            Some(Login::Password { user, password }) => Some(basic(user, password)),
            _ => None,
        };
        let mut request = self.request(url.clone());
        request.authorization = basic.as_deref();
        request.named_by = Some(http.zone(&self.refused.url));
        let mut response = http.send(&request)?;
        if !response.status().is_success() {
            return Err(self.refusal(&request, &response));
        }
        let body = read_body(&mut response, MAX_TOKEN, request.until, cancel)?;
        let bad = |why: &str| Fault::permanent(failed(&request.method, &url, why));
        let token: Token = serde_json::from_slice(&body).map_err(|_| bad("not a token"))?;
        match token.token.or(token.access_token).filter(|t| !t.is_empty()) {
            Some(token) => Ok(format!("Bearer {token}")),
            None => Err(bad("no token in the answer")),
        }
    }

    /// The request without its `Authorization`.
    fn request(&self, mut url: Url) -> Request<'static> {
        let Request { insecure, until, .. } = *self.refused;
        let mut query: Vec<(&str, &str)> = Vec::new();
        query.extend(self.service.map(|service| ("service", service)));
        let Some(Login::Identity(token)) = self.login else {
            query.extend(self.scopes.iter().map(|scope| ("scope", scope.as_str())));
            url.query_pairs_mut().extend_pairs(&query);
            return Request::get(url, "application/json", insecure, until);
        };
        // OAuth 2 (RFC 6749, 6), as in the distribution project's auth/oauth.md.
        let scopes = self.scopes.join(" ");
        query.extend([
            ("scope", scopes.as_str()),
            ("grant_type", "refresh_token"),
            ("client_id", "jc-pull"),
            ("refresh_token", token.as_str()),
        ]);
        let request = Request::get(url, "application/json", insecure, until);
        Request { method: Method::POST, payload: Some(Payload::Form(form(&query))), ..request }
    }

    fn refusal(&self, request: &Request<'_>, response: &Response) -> Fault {
        let status = response.status();
        let error = failed(&request.method, &request.url, status);
        let error = match (status, self.login) {
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, Some(_)) => {
                error.hint("user and password, or token, are not accepted")
            }
            _ => error,
        };
        Fault::refused(error, status, retry_after(response))
    }
}

/// `application/x-www-form-urlencoded`, the encoding of a URL's query.
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
        let bearer = |realm: &str, service: Option<&str>| Challenge::Bearer {
            realm: Some(realm.to_owned()),
            service: service.map(str::to_owned),
        };
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull,push""#;
        for (value, has_password, challenge) in [
            (hub, false, Some(bearer("https://auth.docker.io/token", Some("registry.docker.io")))),
            (r#"Basic realm="x""#, true, Some(Challenge::Basic)),
            (r#"BASIC realm="x""#, true, Some(Challenge::Basic)),
            (r#"Basic realm="x""#, false, None),
            (r#"Negotiate, Basic realm="a, b", Bearer realm=c"#, true, Some(bearer("c", None))),
            (r#"Bearer realm="a \"b\"""#, true, Some(bearer(r#"a "b""#, None))),
            (r#"Basic realm="x", Bearer realm="unclosed"#, true, Some(Challenge::Basic)),
            (r#"Bearer realm="unclosed"#, true, None),
            ("= , =,", true, None),
            ("", true, None),
        ] {
            assert_eq!(Challenge::select([value], has_password), challenge, "{value}");
        }
        let both = Challenge::select(["Negotiate", r#"Bearer realm="r""#], false);
        assert_eq!(both, Some(bearer("r", None)));
    }

    #[test]
    fn a_login_is_encoded() {
        assert_eq!(basic("Aladdin", "open sesame"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(form(&[("a", "b c&d"), ("e", "ü")]), "a=b+c%26d&e=%C3%BC");
    }
}
