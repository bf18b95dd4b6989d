//! What layers are called.

use std::os::fd::OwnedFd;

use jc_unshare::{Context, Result};

use crate::digest::Digest;
use crate::implied::Implied;
use crate::settle;
use crate::stream::Fetched;

/// How a layer is called, by what its content depends on.
pub struct LayerNames {
    /// Of a layer whose content follows from its tar alone: its diff-id.
    pub alone: String,
    /// Of a layer that takes something from those beneath: its chain-id.
    pub chained: String,
}

impl LayerNames {
    /// The names of a layer and those beneath it, from the diff-ids (image-spec config.md,
    /// "Layer ChainID"), lowest first. `ignore_chown`: of such without their owners, which are others.
    pub fn of(diff_ids: &[Digest], ignore_chown: bool) -> Vec<Self> {
        let mark = if ignore_chown { "unowned-" } else { "" };
        let mut chain: Option<Digest> = None;
        let mut names = Vec::new();
        for diff_id in diff_ids {
            let next = match chain {
                None => diff_id.clone(),
                Some(chain) => Digest::of(format!("{chain} {diff_id}").as_bytes()),
            };
            let alone = format!("{mark}{}", diff_id.file_name());
            let chained = format!("{mark}chain-{}", next.file_name());
            names.push(Self { alone, chained });
            chain = Some(next);
        }
        names
    }

    /// The layer's own name, if what it does not list is at most a root that is plain beneath too.
    pub fn settled<'a>(&'a self, layer: &Fetched, beneath: Option<&OwnedFd>) -> Result<&'a str> {
        let root = layer.implied.contains(Implied::ROOT);
        let plain = !layer.implied.beneath_root() && (!root || plain_beneath(beneath)?);
        Ok(if plain && !layer.dependent { &self.alone } else { &self.chained })
    }

    /// The layer that is already there for this place, if any.
    /// `open` opens a layer by its name.
    pub fn find(
        &self,
        open: impl Fn(&str) -> Result<Option<OwnedFd>>,
        beneath: Option<&OwnedFd>,
    ) -> Result<Option<String>> {
        if open(&self.chained)?.is_some() {
            return Ok(Some(self.chained.clone()));
        }
        let Some(alone) = open(&self.alone)? else { return Ok(None) };
        // A plain root may be one that the layer does not list.
        let fits = plain_beneath(beneath)? || !settle::is_plain(&alone).op("stat")?;
        Ok(fits.then(|| self.alone.clone()))
    }
}

fn plain_beneath(beneath: Option<&OwnedFd>) -> Result<bool> {
    beneath.map_or(Ok(true), |root| settle::is_plain(root).op("stat"))
}
