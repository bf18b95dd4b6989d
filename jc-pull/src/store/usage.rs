//! How much of the disk layers take.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};

use jc_unshare::{Context, Result};
use rustix::fs::FileType;

use super::{ImageEntry, Store};
use crate::sys;

/// One image's share of the disk, in bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Usage {
    /// Of all its layers.
    pub size: u64,
    /// Of the layers that no other image has: what removing it gives back.
    pub own: u64,
}

impl Store {
    /// The usage of each image, in their order.
    pub fn usage(&self, images: &[ImageEntry]) -> Result<Vec<Usage>> {
        let mut users = BTreeMap::<&str, usize>::new();
        for image in images {
            let layers: BTreeSet<&str> = image.layers.iter().map(String::as_str).collect();
            layers.into_iter().for_each(|layer| *users.entry(layer).or_default() += 1);
        }
        let mut sizes = BTreeMap::new();
        for layer in users.keys() {
            let size = match self.layer(layer)? {
                Some(root) => {
                    size(&root, &mut BTreeSet::new()).on("read", self.layer_path(layer))?
                }
                None => 0,
            };
            sizes.insert(*layer, size);
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

/// What stat(2) says of all in a directory, files with several names once.
fn size(directory: &OwnedFd, seen: &mut BTreeSet<u64>) -> rustix::io::Result<u64> {
    let mut sum = 0;
    let mut below = Vec::new();
    sys::for_each_name(directory.as_fd(), |name| {
        let stat = sys::stat(directory, name)?;
        if stat.st_nlink == 1 || seen.insert(stat.st_ino) {
            sum += u64::try_from(stat.st_blocks).unwrap_or_default() * 512;
        }
        if sys::file_type(&stat) == FileType::Directory {
            below.push(name.to_vec());
        }
        Ok(())
    })?;
    for name in below {
        sum += size(&sys::open_dir(directory, &name)?, seen)?;
    }
    Ok(sum)
}
