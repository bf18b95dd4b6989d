//! A file of containers-registries.conf(5), version 2.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jc_unshare::{Error, Result};
use serde::Deserialize;
use toml::Spanned;

use crate::name::split_registry;

#[derive(Clone, Debug)]
pub struct Registry {
    pub prefix: String,
    pub location: Option<String>,
    pub insecure: bool,
    pub blocked: bool,
    pub digest_only: bool,
    pub mirrors: Vec<Mirror>,
    pub file: PathBuf,
}

#[derive(Clone, Debug)]
pub struct Mirror {
    pub location: String,
    pub scheme: Option<&'static str>,
    pub insecure: bool,
    pub pull: MirrorUse,
}

/// The images that a mirror serves.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum MirrorUse {
    #[default]
    All,
    DigestOnly,
    TagOnly,
}

/// The content of a file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Content {
    #[serde(default)]
    registry: Vec<Spanned<FileRegistry>>,
    #[serde(default)]
    aliases: BTreeMap<String, Spanned<String>>,
    /// The key of version 1.
    registries: Option<Spanned<toml::Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct FileRegistry {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<FileMirror>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct FileMirror {
    location: Spanned<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: MirrorUse,
}

/// Reads a file. Returns its registries and its aliases. Errors have the line of the fault.
pub fn parse(text: &str, path: &Path) -> Result<(Vec<Registry>, BTreeMap<String, String>)> {
    let fault = |at: usize, why: &str| {
        let line = text.get(..at).unwrap_or(text).matches('\n').count() + 1;
        Error::new(format_args!("{}: line {line}: {why}", path.display()))
    };
    let content: Content = toml::from_str(text)
        .map_err(|e| fault(e.span().map_or(0, |span| span.start), e.message()))?;
    if let Some(old) = content.registries {
        return Err(fault(old.span().start, "version 1 of the format, which is not supported"));
    }
    let mut registries = Vec::new();
    for registry in content.registry {
        let at = registry.span().start;
        registries.push(read(registry.into_inner(), path).map_err(|why| fault(at, why))?);
    }
    let mut aliases = BTreeMap::new();
    for (name, target) in content.aliases {
        let (at, target) = (target.span().start, target.into_inner());
        // An empty alias removes the alias of an earlier file.
        let full = target.starts_with("docker.io/") || split_registry(&target).0 != "docker.io";
        if !target.is_empty() && !full {
            return Err(fault(at, "an alias must name a registry"));
        }
        aliases.insert(name, target);
    }
    Ok((registries, aliases))
}

fn read(registry: FileRegistry, path: &Path) -> Result<Registry, &'static str> {
    let prefix = registry.prefix.or_else(|| registry.location.clone());
    let prefix = prefix.ok_or("a registry with neither prefix nor location")?;
    if prefix.contains("://") || registry.location.as_ref().is_some_and(|l| l.contains("://")) {
        return Err("a prefix or location is no URL");
    }
    if prefix.starts_with("*.") && registry.location.is_some() {
        return Err("a prefix with a wildcard can have no location");
    }
    let mirror = |mirror: FileMirror| Mirror {
        location: mirror.location.into_inner(),
        scheme: None,
        insecure: mirror.insecure,
        pull: mirror.pull_from_mirror,
    };
    Ok(Registry {
        prefix,
        location: registry.location,
        insecure: registry.insecure,
        blocked: registry.blocked,
        digest_only: registry.mirror_by_digest_only,
        mirrors: registry.mirror.into_iter().map(mirror).collect(),
        file: path.to_owned(),
    })
}
