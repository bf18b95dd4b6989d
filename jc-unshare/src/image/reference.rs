//! References to images of registries.

use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv6Addr};

use super::Digest;
use crate::error::{Error, Result};

/// A reference with all defaults.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reference {
    /// `host[:port]`, or `docker.io` for Docker Hub.
    pub registry: String,
    /// The path in the registry, such as `library/alpine`.
    pub repository: String,
    /// The tag, `latest` in a name without tag and digest.
    pub tag: Option<String>,
    /// The digest, which counts more than the tag.
    pub digest: Option<Digest>,
}

/// The longest name of a repository, in bytes (distribution/reference).
const MAX_REPOSITORY: usize = 255;

impl Reference {
    /// Parses `[host[:port]/]path[:tag][@digest]` with the defaults of Docker: `docker.io`, `library/`,
    /// `latest`. Every error is a usage error.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |why: &str| {
            let error = Error::usage(format_args!("image name {text:?}: {why}"));
            if text.starts_with(['/', '.']) {
                return error.hint(format_args!(
                    "docker-archive:{text} is a file of docker save, oci:{text} a layout, jc-run --rootfs {text} a root"
                ));
            }
            error
        };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(Digest::parse(digest).map_err(|e| bad(&e.to_string()))?))
            }
            None => (text, None),
        };
        let (registry, path) = split_registry(rest);
        let (path, tag) = match path.rsplit_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (path, None),
        };
        if !is_host(registry) {
            return Err(bad("not a registry's host[:port]"));
        }
        if let Some(why) = path_fault(path) {
            return Err(bad(why));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(bad("not a tag"));
        }
        let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
        let repository = match registry {
            "docker.io" if !path.contains('/') => format!("library/{path}"),
            _ => path.to_owned(),
        };
        let tag = match (tag, &digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }

    /// The digest or tag to request.
    pub fn target(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }
}

impl Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// Splits a name into registry and path. The first component is a registry if it can be nothing else, as
/// in Docker.
pub fn split_registry(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => ("docker.io", text),
    }
}

/// Whether a name has its registry, so that it is no short name with an alias.
pub fn has_registry(name: &str) -> bool {
    name.starts_with("docker.io/") || split_registry(name).0 != "docker.io"
}

fn is_host(text: &str) -> bool {
    let (host, port) = split_port(text);
    if port.is_some_and(|p| p.parse::<u16>().is_err() || p.starts_with('+')) {
        return false;
    }
    if let Some(v6) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return v6.parse::<Ipv6Addr>().is_ok();
    }
    host.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    })
}

/// Splits `host[:port]`. An IPv6 host keeps its brackets.
pub fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    }
}

/// Whether `host[:port]` is this machine, the only host for which plain http has no risk.
pub fn is_loopback(authority: &str) -> bool {
    let host = split_port(authority).0;
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The fault of a repository name. Components are lower-case words, joined by `.`, `_`, `__` or dashes
/// (distribution-spec).
fn path_fault(path: &str) -> Option<&'static str> {
    if path.len() > MAX_REPOSITORY {
        return Some("the repository's name is too long");
    }
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Some("a repository's name is lower case");
    }
    if path.split('/').all(is_component) { None } else { Some("not a repository's name") }
}

fn is_component(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = text.bytes().next().is_some_and(word) && text.bytes().last().is_some_and(word);
    let separators = text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    ends && separators
        .filter(|s| !s.is_empty())
        .all(|s| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&text.len())
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn references_get_dockers_defaults() {
        for (text, full) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20"),
            ("user/x", "docker.io/user/x:latest"),
            ("docker.io/alpine", "docker.io/library/alpine:latest"),
            ("index.docker.io/alpine", "docker.io/library/alpine:latest"),
            ("localhost/x", "localhost/x:latest"),
            ("host:5000/a/b:tag", "host:5000/a/b:tag"),
            ("127.0.0.1:5000/debian", "127.0.0.1:5000/debian:latest"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            ("quay.io/a_b/c.d/e--f:T_1.0-x", "quay.io/a_b/c.d/e--f:T_1.0-x"),
            (&format!("a@{D}"), &format!("docker.io/library/a@{D}")),
            (&format!("h.x/a:t@{D}"), &format!("h.x/a:t@{D}")),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(reference.to_string(), full, "{text}");
            assert_eq!(Reference::parse(full).unwrap(), reference, "{text}");
        }
        assert_eq!(Reference::parse(&format!("h.x/a:t@{D}")).unwrap().target(), D);
    }

    #[test]
    fn a_name_that_no_registry_can_have_is_a_usage_error() {
        for text in [
            "",
            ":",
            "a:",
            "/a",
            "a/",
            "a//b",
            "A",
            "host.x/A",
            "a b",
            "a:t t",
            "../x",
            "h.x/../x",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "h.x:port/a",
            "h.x:70000/a",
            "-h.x/a",
            "a@sha256:00",
            "[::g]:1/a",
            "http://h.x/a",
            "a?b",
            "a#b",
            "a%2fb",
            "user@host.x/a",
        ] {
            let error = Reference::parse(text).expect_err(text);
            assert_eq!(error.kind(), crate::error::Kind::Usage, "{text}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for (host, yes) in [
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("localhost:1", true),
            ("[::1]:5000", true),
            ("[::1]", true),
            ("128.0.0.1", false),
            ("localhost.example.com", false),
            ("127.0.0.1.example.com", false),
            ("10.0.0.1:5000", false),
        ] {
            assert_eq!(is_loopback(host), yes, "{host}");
        }
    }
}
