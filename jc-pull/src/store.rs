//! The store: where pulled layers live. Its layout is documented in jc-store(5).

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use jc_unshare::{Context, Error, Result};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use serde::Serialize;

use crate::digest::Digest;
use crate::pull::Fetched;
use crate::settle;
use crate::sys;

const LAYERS: &str = "layers";
const BLOBS: &str = "blobs";
const IMAGES: &str = "images";
const TMP: &str = "tmp";

/// A store that is open.
pub struct Store {
    path: PathBuf,
    layers: OwnedFd,
    blobs: OwnedFd,
    images: OwnedFd,
    tmp: OwnedFd,
}

/// Where the store is if nothing says otherwise: `$JC_STORE`, `/var/lib/jc`, or for others than
/// root `$XDG_DATA_HOME/jc` or `~/.local/share/jc`.
pub fn default_path() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(path) = set("JC_STORE") {
        return Ok(path.into());
    }
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/jc".into());
    }
    // The base directory specification: a path there that is not absolute counts as not set.
    let data = set("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let data = data.or_else(|| Some(PathBuf::from(set("HOME")?).join(".local/share")));
    data.map(|data| data.join("jc"))
        .ok_or_else(|| Error::new("no store: neither JC_STORE nor HOME is set").hint("use --store"))
}

impl Store {
    /// Opens the store, making it where it is not there yet, and clears away what killed pulls left.
    pub fn open(path: &Path) -> Result<Self> {
        std::fs::create_dir_all(path).on("mkdir", path)?;
        let path = std::fs::canonicalize(path).on("open", path)?;
        // Nobody but the store's owner may reach the setuid programs of an image.
        let part = |name: &str| {
            let path = path.join(name);
            match rustix::fs::mkdirat(CWD, &path, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e).on("mkdir", &path),
            }
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
            rustix::fs::openat(CWD, &path, flags, Mode::empty()).on("open", &path)
        };
        let (layers, blobs) = (part(LAYERS)?, part(BLOBS)?);
        let (images, tmp) = (part(IMAGES)?, part(TMP)?);
        let store = Self { path, layers, blobs, images, tmp };
        store.sweep()?;
        Ok(store)
    }

    /// Removes the work of pulls that are dead: nobody holds its lock.
    fn sweep(&self) -> Result<()> {
        let swept = sys::for_each_name(&self.tmp, |name| {
            let work = match sys::open_dir(&self.tmp, name) {
                Ok(work) => work,
                Err(Errno::NOENT) => return Ok(()),
                Err(e) => return Err(e),
            };
            match rustix::fs::flock(&work, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => sys::remove_all(self.tmp.as_fd(), name),
                Err(Errno::WOULDBLOCK) => Ok(()),
                Err(e) => Err(e),
            }
        });
        swept.on("sweep", self.path.join(TMP))
    }

    /// The absolute path of a layer.
    pub fn layer_path(&self, name: &str) -> PathBuf {
        self.path.join(LAYERS).join(name)
    }

    /// Opens a layer, if it is here.
    pub fn layer(&self, name: &str) -> Result<Option<OwnedFd>> {
        match sys::open_dir(&self.layers, name.as_bytes()) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e).on("open", self.layer_path(name)),
        }
    }

    /// A manifest or configuration, if it is here and still what its name says.
    pub fn blob(&self, digest: &Digest) -> Option<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.blobs, digest.file_name(), flags, Mode::empty()).ok()?;
        let mut bytes = Vec::new();
        File::from(fd).read_to_end(&mut bytes).ok()?;
        digest.check(&bytes).is_ok().then_some(bytes)
    }

    /// Begins a pull: a directory of its own, that is swept away if this process dies.
    pub fn work(&self) -> Result<Work<'_>> {
        loop {
            let mut random = [0; 8];
            rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
                .op("getrandom")?;
            let name = format!("pull-{:016x}", u64::from_ne_bytes(random));
            let path = self.path.join(TMP).join(&name);
            match rustix::fs::mkdirat(&self.tmp, &name, Mode::RWXU) {
                Err(Errno::EXIST) => continue,
                made => made.on("mkdir", &path)?,
            }
            // Before the lock is held, a sweep may take the directory for a dead one's.
            let fd = match sys::open_dir(&self.tmp, name.as_bytes()) {
                Err(Errno::NOENT) => continue,
                opened => opened.on("open", &path)?,
            };
            match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => continue,
                locked => locked.on("flock", &path)?,
            }
            if rustix::fs::fstat(&fd).on("stat", &path)?.st_nlink > 0 {
                return Ok(Work { store: self, name, path, fd });
            }
        }
    }
}

/// How a layer is called, by what its content depends on.
pub struct LayerNames {
    /// Of a layer whose content follows from its tar alone: its diff-id.
    pub alone: String,
    /// Of a layer that takes something from those beneath: its chain-id.
    pub chained: String,
}

impl LayerNames {
    /// The names of a layer and those beneath it, from the diff-ids (image-spec config.md,
    /// "Layer ChainID"), lowest first.
    pub fn of(diff_ids: &[Digest]) -> Vec<Self> {
        let mut chain: Option<Digest> = None;
        let mut names = Vec::new();
        for diff_id in diff_ids {
            let next = match chain {
                None => diff_id.clone(),
                Some(chain) => Digest::of(format!("{chain} {diff_id}").as_bytes()),
            };
            let (alone, chained) = (diff_id.file_name(), format!("chain-{}", next.file_name()));
            names.push(Self { alone, chained });
            chain = Some(next);
        }
        names
    }

    /// The layer's own name, if what it does not list is at most a root that is plain beneath too.
    pub fn settled<'a>(&'a self, layer: &Fetched, beneath: Option<&OwnedFd>) -> Result<&'a str> {
        let only_root = layer.implied.iter().all(Vec::is_empty);
        let plain = layer.implied.is_empty() || only_root && plain_beneath(beneath)?;
        Ok(if plain && !layer.dependent { &self.alone } else { &self.chained })
    }

    /// The layer that the store already has for this place, if any.
    pub fn find(&self, store: &Store, beneath: Option<&OwnedFd>) -> Result<Option<String>> {
        if store.layer(&self.chained)?.is_some() {
            return Ok(Some(self.chained.clone()));
        }
        let Some(alone) = store.layer(&self.alone)? else { return Ok(None) };
        // A plain root may be one that the layer does not list.
        let fits = plain_beneath(beneath)? || !settle::is_plain(&alone).op("stat")?;
        Ok(fits.then(|| self.alone.clone()))
    }
}

fn plain_beneath(beneath: Option<&OwnedFd>) -> Result<bool> {
    beneath.map_or(Ok(true), |root| settle::is_plain(root).op("stat"))
}

/// What `images/` says of one image: enough to list it and to know which layers are in use.
#[derive(Debug, Serialize)]
pub struct ImageEntry {
    /// The full name.
    #[serde(rename = "ref")]
    pub reference: String,
    /// `os/arch[/variant]`.
    pub platform: String,
    /// The digest that the name stands for, an index's where there is one.
    pub target: Digest,
    /// The digest of the manifest.
    pub manifest: Digest,
    /// The digest of the configuration.
    pub config: Digest,
    /// The names of the layers in `layers/`, lowest first.
    pub layers: Vec<String>,
}

/// A pull's own directory, removed when this is dropped.
pub struct Work<'a> {
    store: &'a Store,
    name: String,
    path: PathBuf,
    fd: OwnedFd,
}

impl Work<'_> {
    /// An empty directory for a layer, in place of an earlier one for the same.
    pub fn make_layer(&self, number: usize) -> Result<OwnedFd> {
        let (name, path) = (layer_work(number), self.path.join(layer_work(number)));
        sys::remove_all(self.fd.as_fd(), name.as_bytes()).on("remove", &path)?;
        rustix::fs::mkdirat(&self.fd, &name, Mode::from_raw_mode(0o755)).on("mkdir", &path)?;
        let fd = sys::open_dir(&self.fd, name.as_bytes()).on("open", &path)?;
        // The store's own directory may hand on a group or a setgid bit.
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        rustix::fs::fchown(&fd, Some(uid), Some(gid)).on("chown", &path)?;
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o755)).on("chmod", &path)?;
        Ok(fd)
    }

    /// Keeps a document that has been verified.
    pub fn add_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        self.write(&digest.file_name(), bytes)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path.join(name);
        let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(0o644))
            .on("create", &path)?;
        File::from(fd).write_all(bytes).on("write", &path)
    }

    /// Makes it all visible, synced: first the layers and the documents, then the image that needs
    /// them. What another pull has made visible meanwhile is as good.
    pub fn publish(
        &self,
        layers: &[(usize, String)],
        blobs: &[Digest],
        image: &ImageEntry,
    ) -> Result<()> {
        let mut line = serde_json::to_vec(image).map_err(|e| Error::new(format_args!("{e}")))?;
        line.push(b'\n');
        // A name and a platform, whatever characters they have, make one file name.
        let key = Digest::of(format!("{} {}", image.reference, image.platform).as_bytes());
        let path = self.store.path.join(IMAGES).join(key.hex());
        if layers.is_empty() && blobs.is_empty() && std::fs::read(&path).is_ok_and(|l| l == line) {
            return Ok(());
        }
        self.write("image", &line)?;
        sync(&self.fd).on("sync", &self.path)?;
        for digest in blobs {
            let name = digest.file_name();
            rustix::fs::renameat(&self.fd, &name, &self.store.blobs, &name)
                .on("rename", self.path.join(&name))?;
        }
        for (number, name) in layers {
            let work = layer_work(*number);
            match rename_new(&self.fd, &work, &self.store.layers, name) {
                Ok(()) | Err(Errno::EXIST | Errno::NOTEMPTY) => {}
                Err(e) => return Err(e).on("rename", self.store.layer_path(name)),
            }
        }
        if !layers.is_empty() || !blobs.is_empty() {
            rustix::fs::fsync(&self.store.layers).on("sync", self.store.path.join(LAYERS))?;
            rustix::fs::fsync(&self.store.blobs).on("sync", self.store.path.join(BLOBS))?;
        }
        rustix::fs::renameat(&self.fd, "image", &self.store.images, key.hex()).on("rename", path)
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        // What cannot be removed now, the next pull's sweep reports.
        let _: rustix::io::Result<()> =
            sys::remove_all(self.store.tmp.as_fd(), self.name.as_bytes());
    }
}

fn layer_work(number: usize) -> String {
    format!("layer-{number}")
}

/// Makes a whole file system durable: one call for a layer's many files.
#[cfg(target_os = "linux")]
fn sync(fd: &OwnedFd) -> rustix::io::Result<()> {
    rustix::fs::syncfs(fd)
}

#[cfg(not(target_os = "linux"))]
fn sync(_: &OwnedFd) -> rustix::io::Result<()> {
    rustix::fs::sync();
    Ok(())
}

fn rename_new(from: &OwnedFd, old: &str, to: &OwnedFd, new: &str) -> rustix::io::Result<()> {
    rustix::fs::renameat_with(from, old, to, new, RenameFlags::NOREPLACE)
}
