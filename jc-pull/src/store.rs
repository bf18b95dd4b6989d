//! The store: where pulled layers live. Its layout is documented in jc-store(5).

mod image;
mod names;
mod remove;
mod usage;
mod work;

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use jc_unshare::{Context, Error, Result, Tool, remove_tree};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::digest::Digest;
use crate::sys;

pub use image::ImageEntry;
pub use names::LayerNames;
pub use remove::Removed;
pub use usage::Usage;
pub use work::{Publish, Work};

const LAYERS: &str = "layers";
const BLOBS: &str = "blobs";
const IMAGES: &str = "images";
const SUMS: &str = "sums";
const TMP: &str = "tmp";

/// A store that is open.
pub struct Store {
    path: PathBuf,
    layers: OwnedFd,
    sums: OwnedFd,
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
    if sys::is_root() {
        return Ok("/var/lib/jc".into());
    }
    // The base directory specification: a path there that is not absolute counts as not set.
    let data = set("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let data = data.or_else(|| Some(PathBuf::from(set("HOME")?).join(".local/share")));
    data.map(|data| data.join("jc"))
        .ok_or_else(|| Error::new("no store: neither JC_STORE nor HOME is set").hint("use --store"))
}

impl Store {
    /// Opens the store that a tool is given, or the default one, and sweeps it. The work of dead pulls
    /// that cannot be removed stops no tool.
    pub fn open_for(tool: Tool, given: Option<&Path>) -> Result<Self> {
        sys::allow_descriptors();
        let store = Self::open(&given.map_or_else(default_path, |path| Ok(path.to_owned()))?)?;
        if let Err(error) = store.sweep() {
            tool.report(&error);
        }
        Ok(store)
    }

    /// Opens the store, making it where it is not there yet.
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
        let (layers, sums, blobs) = (part(LAYERS)?, part(SUMS)?, part(BLOBS)?);
        let (images, tmp) = (part(IMAGES)?, part(TMP)?);
        Ok(Self { path, layers, sums, blobs, images, tmp })
    }

    /// Removes the work of dead pulls, which hold no lock on it. An error is about one of them, and
    /// the others are removed all the same.
    pub fn sweep(&self) -> Result<()> {
        let mut swept = Ok(());
        let listed = sys::for_each_name(&self.tmp, |name| {
            if let Err(e) = self.sweep_one(name) {
                let path = self.path.join(TMP).join(OsStr::from_bytes(name));
                swept = Err(e).on("sweep", path);
            }
            Ok(())
        });
        listed.on("sweep", self.path.join(TMP)).and(swept)
    }

    fn sweep_one(&self, name: &[u8]) -> rustix::io::Result<()> {
        let work = match sys::open_dir(&self.tmp, name) {
            Ok(work) => work,
            Err(Errno::NOENT) => return Ok(()),
            // A file that was to lose its name at once.
            Err(Errno::NOTDIR | Errno::LOOP) => return remove_tree(&self.tmp, name),
            Err(e) => return Err(e),
        };
        match rustix::fs::flock(&work, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => remove_tree(&self.tmp, name),
            Err(Errno::WOULDBLOCK) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Where files can be made that are not to stay.
    pub fn scratch(&self) -> PathBuf {
        self.path.join(TMP)
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

    /// Opens what is known of a layer's files, if anything is.
    pub fn sums(&self, name: &str) -> Result<Option<File>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.sums, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(File::from(fd))),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e).on("open", self.path.join(SUMS).join(name)),
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
}
