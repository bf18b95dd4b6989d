//! The names of layers in the store.

use std::os::fd::OwnedFd;

use jc_unshare::store::UNOWNED;
use jc_unshare::{Context, Result};

use crate::digest::Digest;
use crate::implied::Implied;
use crate::inherit::is_default_root;
use crate::stream::Fetched;

/// The names of one layer. Its content decides which one applies.
pub struct LayerNames {
    /// The diff-id, for a layer whose content follows from its tar alone.
    pub by_diff_id: String,
    /// The chain-id, for a layer that has parts of its lower layers.
    pub by_chain_id: String,
}

impl LayerNames {
    /// The names of layers, the lowest first (image-spec config.md, "Layer ChainID"). With `ignore_chown`
    /// the content differs, and so do the names.
    pub fn of(diff_ids: &[Digest], ignore_chown: bool) -> Vec<Self> {
        let mark = if ignore_chown { UNOWNED } else { "" };
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

    /// The diff-id if the layer inherits no more than the metadata of a default root, and the chain-id
    /// otherwise. Errors are those of stat(2) and of reading attributes.
    pub fn choose<'a>(&'a self, layer: &Fetched, lower: Option<&OwnedFd>) -> Result<&'a str> {
        let root = layer.implied.is_implied(Implied::ROOT);
        let plain = !layer.implied.has_any_below_root() && (!root || is_default_lower(lower)?);
        Ok(if plain && !layer.copied_from_lower { &self.by_diff_id } else { &self.by_chain_id })
    }

    /// The layer in the store that fits on `lower`, if there is one, and its name. `open` opens a layer by
    /// name. Errors are those of `open` and of stat(2).
    pub fn find(
        &self,
        open: impl Fn(&str) -> Result<Option<OwnedFd>>,
        lower: Option<&OwnedFd>,
    ) -> Result<Option<(String, OwnedFd)>> {
        if let Some(by_chain_id) = open(&self.by_chain_id)? {
            return Ok(Some((self.by_chain_id.clone(), by_chain_id)));
        }
        let Some(by_diff_id) = open(&self.by_diff_id)? else { return Ok(None) };
        // A layer with a default root may not list its root.
        let fits = is_default_lower(lower)? || !is_default_root(&by_diff_id).op("stat")?;
        Ok(fits.then(|| (self.by_diff_id.clone(), by_diff_id)))
    }
}

fn is_default_lower(lower: Option<&OwnedFd>) -> Result<bool> {
    lower.map_or(Ok(true), |root| is_default_root(root).op("stat"))
}
