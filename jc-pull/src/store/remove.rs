//! Removal of images and layers.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use jc_unshare::{Context, Error, Result, lock};
use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::sent::SUFFIX;
use super::{BLOBS, IMAGES, ImageEntry, LAYERS, SUMS, Store};
use crate::in_use::{OverlayDirs, container_of};
use crate::sys;

/// The layers that are locked at a time, with a descriptor each.
const LOCKS_AT_A_TIME: usize = 256;

/// Removed images, and the names of removed files.
#[derive(Debug, Default)]
pub struct Removed {
    pub images: Vec<ImageEntry>,
    pub layers: Vec<String>,
    pub blobs: Vec<String>,
    /// The sums of layers that are absent.
    pub sums: Vec<String>,
}

impl Store {
    /// Removes the images that `choose` finds among all, and the layers and documents that no other image needs. A
    /// layer of a running container is an error, and nothing is removed.
    pub fn remove_images(
        &self,
        choose: impl FnOnce(&[ImageEntry]) -> Result<Vec<ImageEntry>>,
    ) -> Result<Removed> {
        let removed = self.exclusively(|| {
            // Another process may have removed or replaced an image before the lock.
            let known = self.images()?;
            let images = choose(&known)?;
            let needed = Needed::by(&known, |image| !images.contains(image));
            let own = Needed::by(&images, |_| true);
            let layers: Vec<String> = own.layers.difference(&needed.layers).cloned().collect();
            let blobs: Vec<String> = own.blobs.difference(&needed.blobs).cloned().collect();
            let locks = self.lock_layers(&layers)?;
            let mut in_use = locks.iter().zip(&layers);
            let in_use = in_use.find_map(|(lock, name)| Some((lock.holder()?, name.clone())));
            if let Some((holder, layer)) = in_use {
                let with = images.into_iter().find(|image| image.layers.contains(&layer));
                return Ok(Err((holder, with)));
            }
            for image in &images {
                let path = self.path.join(IMAGES).join(image.key());
                let removed = rustix::fs::unlinkat(&self.images, image.key(), AtFlags::empty());
                removed.on("remove", &path)?;
            }
            self.move_out(Removed { images, layers, blobs, sums: Vec::new() }).map(Ok)
        })?;
        // The search for the container needs other programs, which must not wait for the locks of this one.
        removed.map_err(|(holder, with)| {
            holder.error(with.as_ref().map(|image| image.reference.as_str()))
        })
    }

    /// Removes the layers and documents that no image needs, except layers of running containers. A
    /// read-only store is an error.
    pub fn remove_unused(&self) -> Result<Removed> {
        self.exclusively(|| {
            let needed = Needed::by(&self.images()?, |_| true);
            let mut unused = names(&self.layers)?;
            unused.retain(|name| !needed.layers.contains(name));
            let mut layers = Vec::new();
            for some in unused.chunks(LOCKS_AT_A_TIME) {
                let locks = self.lock_layers(some)?;
                let free = locks.iter().zip(some).filter(|(lock, _)| lock.is_free());
                let free = free.map(|(_, name)| name.clone()).collect();
                let taken = self.move_out(Removed { layers: free, ..Removed::default() })?;
                layers.extend(taken.layers);
            }
            // A pull that was killed while it published a layer leaves sums without a layer.
            let mut sums = names(&self.sums)?;
            let present: BTreeSet<String> = names(&self.layers)?.into_iter().collect();
            sums.retain(|name| !present.contains(name.strip_suffix(SUFFIX).unwrap_or(name)));
            let mut blobs = names(&self.blobs)?;
            blobs.retain(|name| !needed.blobs.contains(name));
            let rest = self.move_out(Removed { blobs, sums, ..Removed::default() })?;
            Ok(Removed { layers, ..rest })
        })
    }

    /// Keeps other processes from removing images and layers until the descriptor is closed.
    pub fn keep_layers(&self) -> Result<OwnedFd> {
        let lock = sys::open_dir_to_read(&self.images, ".").op("open images")?;
        lock::share(&lock, self.path.join(IMAGES))?;
        Ok(lock)
    }

    /// Runs `work` while no pull publishes an image, so that unused layers stay unused.
    fn exclusively<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.check_writable()?;
        let lock = sys::open_dir_to_read(&self.images, ".").op("open images")?;
        lock::exclude(&lock, self.path.join(IMAGES))?;
        work()
    }

    /// Locks layers, so that no container mounts them: jc-rootfs mounts a layer under a shared lock. The caller reads
    /// the existing mounts under these locks.
    fn lock_layers(&self, names: &[String]) -> Result<Vec<LayerLock>> {
        let locks: Result<Vec<LayerLock>> =
            names.iter().map(|name| self.lock_layer(name)).collect();
        let (mut locks, lower) = (locks?, OverlayDirs::read()?);
        for (lock, name) in locks.iter_mut().zip(names) {
            let by = lower.user_of(&self.layer_path(name)).or_else(|| lower.unnamed_user());
            if let Some(pid) = by.filter(|_| lock.is_free()) {
                *lock = LayerLock::InUse(Holder::Process(pid));
            }
        }
        Ok(locks)
    }

    fn lock_layer(&self, name: &str) -> Result<LayerLock> {
        let Some(layer) = self.layer(name)? else { return Ok(LayerLock::Gone) };
        let is_free = lock::try_exclude(&layer).on("flock", self.layer_path(name))?;
        Ok(if is_free { LayerLock::Free(layer) } else { LayerLock::InUse(Holder::Unknown) })
    }

    /// Moves entries out of their directories, and removes them.
    fn move_out(&self, removed: Removed) -> Result<Removed> {
        if removed.layers.is_empty() && removed.blobs.is_empty() && removed.sums.is_empty() {
            return Ok(removed);
        }
        let work = self.work()?;
        let sent = removed.layers.iter().map(|name| format!("{name}{SUFFIX}")).collect();
        // A layer disappears before its sums.
        for (directory, part, names) in [
            (&self.layers, LAYERS, &removed.layers),
            (&self.sums, SUMS, &removed.layers),
            (&self.sums, SUMS, &sent),
            (&self.sums, SUMS, &removed.sums),
            (&self.blobs, BLOBS, &removed.blobs),
        ] {
            for name in names {
                let away = format!("{part}-{name}");
                match rustix::fs::renameat(directory, name, work.fd(), &away) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(e) => return Err(e).on("rename", self.path.join(part).join(name)),
                }
            }
        }
        Ok(removed)
    }
}

enum LayerLock {
    /// No container has the layer, or can mount it while this descriptor is open.
    Free(#[allow(dead_code, reason = "the lock ends with the descriptor")] OwnedFd),
    Gone,
    InUse(Holder),
}

/// The user of a layer.
#[derive(Clone, Copy, Debug)]
enum Holder {
    /// A container that takes its layers at the moment, or a program that reads the layer.
    Unknown,
    /// The PID of a process that sees an overlay with the layer.
    Process(u32),
}

impl Holder {
    /// The error for an image with the layer, which names the container as jc-list does.
    fn error(self, image: Option<&str>) -> Error {
        let image = image.unwrap_or_default();
        let Self::Process(pid) = self else {
            return Error::new(format_args!(
                "{image}: in use by a container that starts, or by a program that reads it"
            ));
        };
        match container_of(pid) {
            Some(name) => Error::new(format_args!("{image}: in use by container {name}"))
                .hint(format_args!("jc-rm -f {name} ends and removes the container")),
            None => Error::new(format_args!("{image}: in use by process {pid}"))
                .hint("jc-list has the PID of each container; jc-rm -f ID ends one"),
        }
    }
}

impl LayerLock {
    fn is_free(&self) -> bool {
        matches!(self, Self::Free(_))
    }

    fn holder(&self) -> Option<Holder> {
        match self {
            Self::InUse(holder) => Some(*holder),
            Self::Free(_) | Self::Gone => None,
        }
    }
}

/// The names of the files that images need.
struct Needed {
    layers: BTreeSet<String>,
    blobs: BTreeSet<String>,
}

impl Needed {
    fn by(images: &[ImageEntry], which: impl Fn(&ImageEntry) -> bool) -> Self {
        let (mut layers, mut blobs) = (BTreeSet::new(), BTreeSet::new());
        for image in images.iter().filter(|image| which(image)) {
            layers.extend(image.layers.iter().cloned());
            blobs.extend(image.documents().map(crate::digest::Digest::file_name));
        }
        Self { layers, blobs }
    }
}

fn names(directory: &OwnedFd) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let copy = sys::open_dir_to_read(directory, ".").op("open store")?;
    sys::for_each_name(&copy, |name| {
        names.push(String::from_utf8_lossy(name).into_owned());
        Ok(())
    })
    .op("read store")?;
    Ok(names)
}
