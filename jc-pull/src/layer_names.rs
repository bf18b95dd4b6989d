//! What layers are called.

use std::os::fd::OwnedFd;

use jc_unshare::{Context, Result};

use crate::digest::Digest;
use crate::implied::Implied;
use crate::inherit::is_default_root;
use crate::stream::Fetched;

/// How a layer is called, by what its content depends on.
pub struct LayerNames {
    /// Of a layer whose content follows from its tar by_diff_id: its diff-id.
    pub by_diff_id: String,
    /// Of a layer that takes something from those beneath: its chain-id.
    pub by_chain_id: String,
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
            let by_diff_id = format!("{mark}{}", diff_id.file_name());
            let by_chain_id = format!("{mark}chain-{}", next.file_name());
            names.push(Self { by_diff_id, by_chain_id });
            chain = Some(next);
        }
        names
    }

    /// The layer's own name, if what it does not list is at most a root that is plain beneath too.
    pub fn choose<'a>(&'a self, layer: &Fetched, lower: Option<&OwnedFd>) -> Result<&'a str> {
        let root = layer.implied.is_implied(Implied::ROOT);
        let plain = !layer.implied.has_any_below_root() && (!root || is_default_lower(lower)?);
        Ok(if plain && !layer.copied_from_lower { &self.by_diff_id } else { &self.by_chain_id })
    }

    /// The layer that is already there for this place, if any.
    /// `open` opens a layer by its name.
    pub fn find(
        &self,
        open: impl Fn(&str) -> Result<Option<OwnedFd>>,
        lower: Option<&OwnedFd>,
    ) -> Result<Option<String>> {
        if open(&self.by_chain_id)?.is_some() {
            return Ok(Some(self.by_chain_id.clone()));
        }
        let Some(by_diff_id) = open(&self.by_diff_id)? else { return Ok(None) };
        // A plain root may be one that the layer does not list.
        let fits = is_default_lower(lower)? || !is_default_root(&by_diff_id).op("stat")?;
        Ok(fits.then(|| self.by_diff_id.clone()))
    }
}

fn is_default_lower(lower: Option<&OwnedFd>) -> Result<bool> {
    lower.map_or(Ok(true), |root| is_default_root(root).op("stat"))
}
