//! A file of containers-registries.conf(5), version 2.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use crate::error::{Error, Result};
use crate::image::{Reference, has_registry};

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Registry {
    /// The location if the file has no prefix.
    #[serde(default)]
    pub prefix: String,
    pub location: Option<String>,
    #[serde(default)]
    pub insecure: bool,
    #[serde(default)]
    pub blocked: bool,
    #[serde(default)]
    pub mirror_by_digest_only: bool,
    #[serde(default, rename = "mirror")]
    pub mirrors: Vec<Mirror>,
    #[serde(skip)]
    pub file: PathBuf,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Mirror {
    pub location: String,
    /// The scheme of `--mirror`.
    #[serde(skip)]
    pub scheme: Option<&'static str>,
    #[serde(default)]
    pub insecure: bool,
    #[serde(default)]
    pub pull_from_mirror: MirrorUse,
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
    registry: Vec<Spanned<Registry>>,
    #[serde(default)]
    aliases: BTreeMap<String, Spanned<String>>,
    /// The key of version 1.
    registries: Option<Spanned<toml::Value>>,
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
        registries.push(check(registry.into_inner(), path).map_err(|why| fault(at, why))?);
    }
    let mut aliases = BTreeMap::new();
    for (name, target) in content.aliases {
        let (at, target) = (target.span().start, target.into_inner());
        // An empty alias removes the alias of an earlier file.
        if !target.is_empty() && !has_registry(&target) {
            return Err(fault(at, "an alias must name a registry"));
        }
        if !target.is_empty() && Reference::parse(&format!("{target}:tag")).is_err() {
            return Err(fault(at, "an alias must be a repository without a tag"));
        }
        aliases.insert(name, target);
    }
    Ok((registries, aliases))
}

/// Completes a registry. The error is a reason to refuse the file.
fn check(mut registry: Registry, path: &Path) -> Result<Registry, &'static str> {
    path.clone_into(&mut registry.file);
    let location = registry.location.as_deref();
    if registry.prefix.is_empty() {
        let location = location.ok_or("a registry with neither prefix nor location")?;
        location.clone_into(&mut registry.prefix);
    }
    if registry.prefix.contains("://") || location.is_some_and(|l| l.contains("://")) {
        return Err("a prefix or location is no URL");
    }
    if registry.prefix.starts_with("*.") && location.is_some() {
        return Err("a prefix with a wildcard can have no location");
    }
    Ok(registry)
}
