//! Names of images: references of registries, and transports (containers-transports(5)).

use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};

use jc_unshare::{Error, Result};

use crate::digest::Digest;

/// A name from the command line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Name {
    Registry(Reference),
    /// An image in a file or directory. The tag is the annotation `org.opencontainers.image.ref.name` in
    /// a layout, and a reference in an archive of `docker save`.
    Path {
        transport: Transport,
        path: PathBuf,
        tag: Option<String>,
    },
}

/// A form of images outside of registries. An archive may be `-`, for stdin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transport {
    /// An OCI image layout in a directory.
    Oci,
    /// An OCI image layout in a tar archive.
    OciArchive,
    /// An archive of `docker save`.
    DockerArchive,
}

impl Transport {
    const ALL: [Self; 3] = [Self::Oci, Self::OciArchive, Self::DockerArchive];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Oci => "oci",
            Self::OciArchive => "oci-archive",
            Self::DockerArchive => "docker-archive",
        }
    }

    /// The name of an image in the store.
    pub fn image(self, path: &Path, tag: Option<&str>) -> String {
        let tag = tag.map_or_else(String::new, |tag| format!(":{tag}"));
        format!("{}:{}{tag}", self.name(), path.display())
    }
}

impl Name {
    /// Parses `[docker://]REFERENCE`, `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]` or
    /// `docker-archive:FILE[:REF]`. Every error is a usage error.
    pub fn parse(text: &str) -> Result<Self> {
        let rest = |transport: Transport| text.strip_prefix(transport.name())?.strip_prefix(':');
        let found = Transport::ALL.into_iter().find_map(|t| Some((t, rest(t)?)));
        let Some((transport, rest)) = found else {
            let reference = text.strip_prefix("docker://").unwrap_or(text);
            refuse_foreign(reference)?;
            return Reference::parse(reference).map(Self::Registry);
        };
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        if path.is_empty() || tag == Some("") {
            return Err(Error::usage(format_args!("{text}: not TRANSPORT:PATH[:TAG]")));
        }
        Ok(Self::Path { transport, path: path.into(), tag: tag.map(str::to_owned) })
    }

    pub fn is_stdin(&self) -> bool {
        matches!(self, Self::Path { transport, path, .. }
            if *transport != Transport::Oci && path.as_os_str() == "-")
    }
}

/// Refuses the spellings of other programs that would mean another image: URLs, and transports of skopeo(1).
fn refuse_foreign(text: &str) -> Result<()> {
    const TRANSPORTS: [(&str, &str); 5] = [
        ("dir:", "skopeo copy dir:PATH oci:DIR; jc-pull oci:DIR"),
        ("containers-storage:", "podman save IMAGE | jc-pull docker-archive:-"),
        ("docker-daemon:", "docker save IMAGE | jc-pull docker-archive:-"),
        ("ostree:", "skopeo copy ostree:IMAGE oci:DIR; jc-pull oci:DIR"),
        ("tarball:", "tar xf FILE -C DIR; jc-run --rootfs DIR"),
    ];
    for scheme in ["https://", "http://"] {
        if let Some(rest) = text.strip_prefix(scheme) {
            return Err(Error::usage(format_args!("image name {text:?}: a URL"))
                .hint(format_args!("jc-pull {rest}; --insecure allows plain HTTP")));
        }
    }
    match TRANSPORTS.iter().find(|(prefix, _)| text.starts_with(prefix)) {
        Some((_, line)) => {
            Err(Error::usage(format_args!("image name {text:?}: a transport of skopeo")).hint(line))
        }
        None => Ok(()),
    }
}

/// A reference with all defaults.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reference {
    /// `host[:port]`, or `docker.io` for Docker Hub.
    pub registry: String,
    /// The path in the registry, such as `library/alpine`.
    pub repository: String,
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
        let bad = |why: &str| Error::usage(format_args!("image name {text:?}: {why}"));
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
    fn a_spelling_of_another_program_is_no_image_of_docker_hub() {
        for (text, line) in [
            ("https://quay.io/a/b", "jc-pull quay.io/a/b"),
            ("dir:/x", "jc-pull oci:DIR"),
            ("containers-storage:x", "podman save IMAGE | jc-pull"),
            ("docker-daemon:x:1", "docker save IMAGE | jc-pull"),
        ] {
            let report = Name::parse(text).unwrap_err().report("t");
            assert!(report.contains(line), "{report}");
        }
        assert!(Name::parse("docker.io/library/dir:x").is_ok());
    }

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
            let error = Name::parse(text).expect_err(text);
            assert_eq!(error.kind(), jc_unshare::Kind::Usage, "{text}");
        }
    }

    #[test]
    fn transports_are_distinguished() {
        for (text, directory, tag) in [
            ("oci:x", "x", None),
            ("oci:/a/b:1.0", "/a/b", Some("1.0")),
            ("oci:x:a/b:c", "x", Some("a/b:c")),
        ] {
            let tag = tag.map(str::to_owned);
            assert_eq!(
                Name::parse(text).unwrap(),
                Name::Path { transport: Transport::Oci, path: directory.into(), tag }
            );
        }
        assert!(Name::parse("oci:").is_err());
        assert!(Name::parse("oci:x:").is_err());
        assert_eq!(Name::parse("docker://alpine").unwrap(), Name::parse("alpine").unwrap());
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
