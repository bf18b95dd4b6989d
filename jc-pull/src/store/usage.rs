//! Disk usage of images.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

use jc_unshare::{Context, Result};
use rustix::fs::Stat;

use super::{ImageEntry, Store};
use crate::walk::{NonDirectory, Visitor, walk};

/// The disk usage of one image, in bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Usage {
    /// The bytes of all layers.
    pub size: u64,
    /// The bytes of the layers that no other image has.
    pub own: u64,
}

impl Store {
    /// The usage of each image, in the order of `images`.
    pub fn usage(&self, images: &[ImageEntry]) -> Result<Vec<Usage>> {
        let mut users = BTreeMap::<&str, usize>::new();
        for image in images {
            let layers: BTreeSet<&str> = image.layers.iter().map(String::as_str).collect();
            layers.into_iter().for_each(|layer| *users.entry(layer).or_default() += 1);
        }
        let mut sizes = BTreeMap::new();
        for layer in users.keys() {
            let mut size = Size::default();
            if let Some(root) = self.layer(layer)? {
                let walked = walk(&[root.try_clone().op("dup")?], &mut size);
                // Another process may remove the layer meanwhile.
                if let Err(error) = walked
                    && self.has_layer(layer, &root)?
                {
                    return Err(error.context(format_args!("layer {layer}")));
                }
            }
            sizes.insert(*layer, size.0);
        }
        let usage = |image: &ImageEntry| {
            let mut usage = Usage::default();
            for layer in image.layers.iter().map(String::as_str).collect::<BTreeSet<_>>() {
                let size = sizes.get(layer).copied().unwrap_or_default();
                usage.size += size;
                usage.own += if users.get(layer) == Some(&1) { size } else { 0 };
            }
            usage
        };
        Ok(images.iter().map(usage).collect())
    }
}

/// The sum of the sizes in stat(2). A file with several names counts once.
#[derive(Default)]
struct Size(u64);

impl Size {
    fn add(&mut self, stat: &Stat) {
        self.0 += u64::try_from(stat.st_blocks).unwrap_or_default() * 512;
    }
}

impl Visitor for Size {
    fn directory(&mut self, _: &[u8], _: &OwnedFd, stat: &Stat) -> Result<()> {
        self.add(stat);
        Ok(())
    }

    fn non_directory(&mut self, entry: &NonDirectory<'_>) -> Result<()> {
        if entry.first.is_none() {
            self.add(entry.stat);
        }
        Ok(())
    }
}
