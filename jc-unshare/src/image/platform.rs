//! Platforms, `os/arch[/variant]`, and the choice between them (OCI image-spec image-index.md).

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A platform of images.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Platform {
    /// A GOOS of Go.
    #[serde(default)]
    pub os: String,
    /// A GOARCH of Go.
    #[serde(default)]
    pub architecture: String,
    /// The variant of the CPU, such as `v7` of arm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// The platform of the host. The system is Linux on every host.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "powerpc64" if cfg!(target_endian = "little") => ("ppc64le", None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    /// Parses `os/arch[/variant]`. Every error is a usage error.
    pub fn parse(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let word =
            |s: &&str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.');
        match parts.as_slice() {
            [os, architecture, variant @ ..] if variant.len() < 2 && parts.iter().all(word) => {
                Ok(Self {
                    os: (*os).to_owned(),
                    architecture: (*architecture).to_owned(),
                    variant: variant.first().map(|v| (*v).to_owned()),
                })
            }
            _ => Err(Error::usage(format_args!("platform {text:?}: not os/arch[/variant]"))
                .hint("such as linux/amd64 or linux/arm64")),
        }
    }

    /// The distance of an image for `self` to the platform `target`: lower is better, none if the image
    /// does not run there.
    pub fn distance(&self, target: &Self) -> Option<u32> {
        if self.os != target.os || self.architecture != target.architecture {
            return None;
        }
        let (have, want) = (self.effective_variant(), target.effective_variant());
        match (have, want) {
            _ if have == want => Some(0),
            // An image without a variant is for all of them.
            ("", _) => Some(50),
            // Later variants execute images for earlier variants.
            (have, want) => match (number(have), number(want)) {
                (Some(have), Some(want)) if have < want => Some(want - have),
                _ => None,
            },
        }
    }

    /// Whether this is the platform of an attestation in an index.
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" || self.architecture == "unknown"
    }

    fn effective_variant(&self) -> &str {
        match (self.architecture.as_str(), self.variant.as_deref()) {
            ("arm64", None | Some("v8" | "8" | "")) => "v8",
            ("amd64", None | Some("")) => "v1",
            (_, variant) => variant.unwrap_or_default(),
        }
    }
}

fn number(variant: &str) -> Option<u32> {
    variant.strip_prefix('v')?.split('.').next()?.parse().ok()
}

impl Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_deref() {
            Some(variant) if !variant.is_empty() => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(text: &str) -> Platform {
        Platform::parse(text).unwrap()
    }

    #[test]
    fn reads_and_writes_the_usual_form() {
        for text in ["linux/amd64", "linux/arm/v7", "linux/riscv64"] {
            assert_eq!(p(text).to_string(), text);
        }
        for text in ["", "linux", "linux/", "a/b/c/d", "linux/am d64", "/amd64"] {
            assert!(Platform::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_nearest_image_wins() {
        for (have, want, distance) in [
            ("linux/amd64", "linux/amd64", Some(0)),
            ("linux/amd64/v1", "linux/amd64", Some(0)),
            ("linux/amd64/v3", "linux/amd64", None),
            ("linux/amd64", "linux/amd64/v3", Some(2)),
            ("linux/arm64", "linux/arm64/v8", Some(0)),
            ("linux/arm/v6", "linux/arm/v7", Some(1)),
            ("linux/arm/v7", "linux/arm/v6", None),
            ("linux/arm", "linux/arm/v7", Some(50)),
            ("linux/386", "linux/amd64", None),
            ("windows/amd64", "linux/amd64", None),
        ] {
            assert_eq!(p(have).distance(&p(want)), distance, "{have} for {want}");
        }
    }
}
