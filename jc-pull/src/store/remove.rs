//! Taking things out of the store.

use std::collections::BTreeSet;

use jc_unshare::{Context, Error, Result};
use rustix::fs::{AtFlags, FlockOperation};
use rustix::io::Errno;

use super::{BLOBS, IMAGES, ImageEntry, LAYERS, SUMS, Store};
use crate::in_use::Mounted;
use crate::sys;

/// As many layers are locked at once, each by a descriptor.
const HELD_AT_ONCE: usize = 256;

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
            let held = self.hold(&layers)?;
            let in_use = held.iter().zip(&layers).find_map(|(held, name)| Some((held.by()?, name)));
            if let Some((by, name)) = in_use {
                let with = images.iter().find(|image| image.layers.contains(name));
                let image = with.map(|image| image.reference.as_str()).unwrap_or_default();
                return Err(Error::new(format_args!("{image}: in use by {by}")));
            }
            for image in images {
                let path = self.path.join(IMAGES).join(image.key());
                let removed = rustix::fs::unlinkat(&self.images, image.key(), AtFlags::empty());
                removed.on("remove", &path)?;
            }
            self.take(Removed { layers, blobs, sums: Vec::new() })
        })
    }

    /// Removes the layers and documents that no image needs, but for layers that a running
    /// container has.
    pub fn remove_unused(&self) -> Result<Removed> {
        self.exclusively(|| {
            let needed = Needed::by(&self.images()?, |_| true);
            let mut unused = names(&self.layers)?;
            unused.retain(|name| !needed.layers.contains(name));
            let mut layers = Vec::new();
            for some in unused.chunks(HELD_AT_ONCE) {
                let held = self.hold(some)?;
                let free = held.iter().zip(some).filter(|(held, _)| held.is_free());
                let free = free.map(|(_, name)| name.clone()).collect();
                let taken = self.take(Removed { layers: free, ..Removed::default() })?;
                layers.extend(taken.layers);
            }
            // Of a layer that a pull was killed at the point of making visible.
            let mut sums = names(&self.sums)?;
            for name in names(&self.layers)? {
                sums.retain(|sums| *sums != name);
            }
            let mut blobs = names(&self.blobs)?;
            blobs.retain(|name| !needed.blobs.contains(name));
            let rest = self.take(Removed { layers: Vec::new(), blobs, sums })?;
            Ok(Removed { layers, ..rest })
        })
    }

    /// While no pull makes an image visible: what nobody needs now, nobody comes to need.
    fn exclusively<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.check_writable()?;
        let lock = sys::open_dir(&self.images, b".").op("open images")?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).op("flock images")?;
        work()
    }

    /// Holds layers against whoever is about to mount them: that is done under a shared lock. What is
    /// mounted already the kernel knows, who is asked when nobody can begin any more.
    fn hold(&self, names: &[String]) -> Result<Vec<Held>> {
        let held: Result<Vec<Held>> = names.iter().map(|name| self.lock(name)).collect();
        let (mut held, mounted) = (held?, Mounted::now()?);
        for (held, name) in held.iter_mut().zip(names) {
            let by = mounted.by(&self.layer_path(name)).or_else(|| mounted.nameless());
            if let Some(pid) = by.filter(|_| held.is_free()) {
                *held = Held::InUse(format!("process {pid}"));
            }
        }
        Ok(held)
    }

    fn lock(&self, name: &str) -> Result<Held> {
        let Some(layer) = self.layer(name)? else { return Ok(Held::Gone) };
        match rustix::fs::flock(&layer, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Held::Free(layer)),
            Err(Errno::WOULDBLOCK) => Ok(Held::InUse("a container that starts".to_owned())),
            Err(e) => Err(e).on("flock", self.layer_path(name)),
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

impl Held {
    fn is_free(&self) -> bool {
        matches!(self, Self::Free(_))
    }

    /// Who has it.
    fn by(&self) -> Option<&str> {
        match self {
            Self::InUse(by) => Some(by),
            Self::Free(_) | Self::Gone => None,
        }
    }
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
