//! Taking things out of the store.

use std::collections::BTreeSet;

use jc_unshare::{Context, Error, Result};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::{BLOBS, IMAGES, ImageEntry, LAYERS, SUMS, Store};
use crate::in_use::Mounted;
use crate::sys;

/// What was taken out.
#[derive(Debug, Default)]
pub struct Removed {
    /// Layers.
    pub layers: Vec<String>,
    /// Documents.
    pub blobs: Vec<String>,
    /// Sums of layers that are not there.
    pub sums: Vec<String>,
}

impl Store {
    /// Removes images, and the layers and documents that only they need. If a running container
    /// has one of those layers, that is an error and nothing is removed.
    pub fn remove_images(&self, images: &[ImageEntry]) -> Result<Removed> {
        self.exclusively(|| {
            let needed = Needed::by(&self.images()?, |image| !images.contains(image));
            let own = Needed::by(images, |_| true);
            let layers: Vec<String> = own.layers.difference(&needed.layers).cloned().collect();
            let blobs: Vec<String> = own.blobs.difference(&needed.blobs).cloned().collect();
            let mounted = Mounted::now()?;
            let mut held = Vec::new();
            for name in &layers {
                match self.hold(name, &mounted)? {
                    Held::Free(lock) => held.push(lock),
                    Held::Gone => {}
                    Held::InUse(by) => {
                        let with = images.iter().find(|image| image.layers.contains(name));
                        let image = with.map(|image| image.reference.as_str()).unwrap_or_default();
                        return Err(Error::new(format_args!("{image}: in use by {by}")));
                    }
                }
            }
            for image in images {
                let path = self.path.join(IMAGES).join(image.key());
                std::fs::remove_file(&path).on("remove", &path)?;
            }
            self.take(Removed { layers, blobs, sums: Vec::new() })
        })
    }

    /// Removes the layers and documents that no image needs, but for layers that a running
    /// container has.
    pub fn remove_unused(&self) -> Result<Removed> {
        self.exclusively(|| {
            let needed = Needed::by(&self.images()?, |_| true);
            let mounted = Mounted::now()?;
            let mut removed = Removed::default();
            for name in names(&self.layers)? {
                if !needed.layers.contains(&name)
                    && matches!(self.hold(&name, &mounted)?, Held::Free(_))
                {
                    removed.layers.push(name);
                }
            }
            // Of a layer that a pull was killed at the point of making visible.
            removed.sums = names(&self.sums)?;
            for name in names(&self.layers)? {
                removed.sums.retain(|sums| *sums != name);
            }
            removed.blobs = names(&self.blobs)?;
            removed.blobs.retain(|name| !needed.blobs.contains(name));
            self.take(removed)
        })
    }

    /// While no pull makes an image visible: what nobody needs now, nobody comes to need.
    fn exclusively<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let lock = sys::open_dir(&self.images, b".").op("open images")?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).op("flock images")?;
        work()
    }

    /// Who is about to mount a layer holds a shared lock on it until that is done; what is mounted
    /// the kernel knows.
    fn hold(&self, name: &str, mounted: &Mounted) -> Result<Held> {
        let path = self.layer_path(name);
        let Some(layer) = self.layer(name)? else { return Ok(Held::Gone) };
        match rustix::fs::flock(&layer, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(Held::InUse("a container that starts".to_owned())),
            Err(e) => return Err(e).on("flock", path),
        }
        match mounted.by(&path).or_else(|| mounted.nameless()) {
            Some(pid) => Ok(Held::InUse(format!("process {pid}"))),
            None => Ok(Held::Free(layer)),
        }
    }

    /// Out of sight at once, and then away.
    fn take(&self, what: Removed) -> Result<Removed> {
        if what.layers.is_empty() && what.blobs.is_empty() && what.sums.is_empty() {
            return Ok(what);
        }
        let work = self.work()?;
        // A layer goes before its sums do.
        for (directory, part, names) in [
            (&self.layers, LAYERS, &what.layers),
            (&self.sums, SUMS, &what.layers),
            (&self.sums, SUMS, &what.sums),
            (&self.blobs, BLOBS, &what.blobs),
        ] {
            for name in names {
                let away = format!("{part}-{name}");
                match rustix::fs::renameat(directory, name, work.fd(), &away) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(e) => return Err(e).on("rename", self.path.join(part).join(name)),
                }
            }
        }
        Ok(what)
    }
}

enum Held {
    /// Nobody has it, nor can get it while this is open.
    Free(#[allow(dead_code, reason = "it is held, not read")] std::os::fd::OwnedFd),
    /// It is not there any more.
    Gone,
    InUse(String),
}

/// What images need, by file name.
struct Needed {
    layers: BTreeSet<String>,
    blobs: BTreeSet<String>,
}

impl Needed {
    fn by(images: &[ImageEntry], which: impl Fn(&ImageEntry) -> bool) -> Self {
        let (mut layers, mut blobs) = (BTreeSet::new(), BTreeSet::new());
        for image in images.iter().filter(|image| which(image)) {
            layers.extend(image.layers.iter().cloned());
            let documents = [&image.target, &image.manifest, &image.config];
            blobs.extend(documents.map(crate::digest::Digest::file_name));
        }
        Self { layers, blobs }
    }
}

fn names(directory: &std::os::fd::OwnedFd) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let copy = sys::open_dir(directory, b".").op("open store")?;
    sys::for_each_name(&copy, |name| {
        names.push(String::from_utf8_lossy(name).into_owned());
        Ok(())
    })
    .op("read store")?;
    Ok(names)
}
