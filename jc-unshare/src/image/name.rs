//! Names of images: references of registries, and transports (containers-transports(5)).

use std::path::{Path, PathBuf};

use super::Reference;
use crate::error::{Error, Result};

/// A name from the command line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Name {
    /// An image in a registry.
    Registry(Reference),
    /// An image in a file or directory. The tag is the annotation `org.opencontainers.image.ref.name` in
    /// a layout, and a reference in an archive of `docker save`.
    Path {
        /// The form.
        transport: Transport,
        /// The file or directory.
        path: PathBuf,
        /// The image in it.
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

    /// The name in containers-transports(5).
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
            let reference = match text.strip_prefix("docker://") {
                Some(reference) => reference,
                None => refuse_archive(text).map(|()| text)?,
            };
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

    /// Parses the name of a destination in the same form.
    pub fn parse_destination(text: &str) -> Result<Self> {
        match foreign_transport(text) {
            Some((.., destination)) => Err(of_skopeo(text, destination)),
            None => Self::parse(text),
        }
    }

    /// Whether the image comes from standard input.
    pub fn is_stdin(&self) -> bool {
        matches!(self, Self::Path { transport, path, .. }
            if *transport != Transport::Oci && path.as_os_str() == "-")
    }
}

/// Refuses the spellings of other programs that would mean another image: URLs, and transports of skopeo(1).
fn refuse_foreign(text: &str) -> Result<()> {
    for scheme in ["https://", "http://"] {
        if let Some(rest) = text.strip_prefix(scheme) {
            return Err(Error::usage(format_args!("image name {text:?}: a URL"))
                .hint(format_args!("jc-pull {rest}; --insecure allows plain HTTP")));
        }
    }
    foreign_transport(text).map_or(Ok(()), |(_, source, _)| Err(of_skopeo(text, source)))
}

/// Transports of skopeo(1), each with the lines for an image from there and for one that goes there.
const TRANSPORTS: [(&str, &str, &str); 5] = [
    (
        "dir:",
        "skopeo copy dir:PATH oci:DIR; jc-pull oci:DIR",
        "jc-push oci:DIR; skopeo copy oci:DIR dir:PATH",
    ),
    (
        "containers-storage:",
        "podman save IMAGE | jc-pull docker-archive:-",
        "jc-push docker-archive:-:NAME | podman load",
    ),
    (
        "docker-daemon:",
        "docker save IMAGE | jc-pull docker-archive:-",
        "jc-push docker-archive:-:NAME | docker load",
    ),
    (
        "ostree:",
        "skopeo copy ostree:IMAGE oci:DIR; jc-pull oci:DIR",
        "jc-push oci:DIR; skopeo copy oci:DIR ostree:IMAGE",
    ),
    ("tarball:", "tar xf FILE -C DIR; jc-run --rootfs DIR", "jc-pull --tar FILE IMAGE"),
];

fn foreign_transport(text: &str) -> Option<&(&str, &str, &str)> {
    TRANSPORTS.iter().find(|(prefix, ..)| text.starts_with(prefix))
}

fn of_skopeo(text: &str, line: &str) -> Error {
    Error::usage(format_args!("image name {text:?}: a transport of skopeo")).hint(line)
}

/// Refuses the name of a file in the place of a reference. `docker://` in front of it makes it one.
fn refuse_archive(text: &str) -> Result<()> {
    if ![".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.xz"].iter().any(|end| text.ends_with(end)) {
        return Ok(());
    }
    Err(Error::usage(format_args!("image name {text:?}: a file")).hint(format_args!(
        "docker-archive:{text} is one of docker save, oci-archive:{text} an OCI layout; {PLAIN}"
    )))
}

/// The remedy for an archive of files.
pub const PLAIN: &str = "files of a root: jc-commit --scratch --layer FILE | jc-run -- PROG";

#[cfg(test)]
mod tests {
    use super::*;

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
}
