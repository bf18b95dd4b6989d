//! The store of pulled layers (jc-store(5)).

mod claim;
mod image;
mod remove;
mod sent;
mod usage;
mod work;

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use jc_unshare::descriptor::is_named;
use jc_unshare::private_dir::{self, Owner, Purpose, WRITABLE, open_chain};
use jc_unshare::store::default_path;
use jc_unshare::{
    Context, Error, Result, Tool, exists, lock, read_at_most, remove_tree, rlimit, temporary,
};
use rustix::io::Errno;

use crate::digest::Digest;
use crate::manifest::MAX_DOCUMENT;
use crate::sys;

pub use claim::Claims;
pub use image::ImageEntry;
pub use remove::Removed;
pub use usage::Usage;
pub use work::{Publication, Work};

const LAYERS: &str = "layers";
const BLOBS: &str = "blobs";
const IMAGES: &str = "images";
const SUMS: &str = "sums";
const TMP: &str = "tmp";

/// The errors of flock(2) on file systems without locks.
const NO_LOCKS: [Option<i32>; 2] =
    [Some(Errno::NOLCK.raw_os_error()), Some(Errno::OPNOTSUPP.raw_os_error())];

const PURPOSE: Purpose =
    Purpose { name: "store", hint: "--store DIR, or JC_STORE, names another directory" };

pub struct Store {
    path: PathBuf,
    owner: Owner,
    layers: OwnedFd,
    sums: OwnedFd,
    blobs: OwnedFd,
    images: OwnedFd,
    tmp: OwnedFd,
}

impl Store {
    /// Checks the path of a store. A process does so before it enters a user namespace, which has no
    /// numbers for most owners. A path that other users can change is an error.
    pub fn check_path(given: Option<&Path>) -> Result<()> {
        let path = given.map_or_else(default_path, |path| Ok(path.to_owned()))?;
        open_chain(&path, PURPOSE, false).map(drop)
    }

    /// Opens the store of an option, or the default store, and sweeps it. A sweep that fails is reported,
    /// and does not end the program.
    pub fn open_for(tool: Tool, given: Option<&Path>) -> Result<Self> {
        // An image needs a descriptor for each layer.
        rlimit::raise_descriptors()?;
        let store = Self::open(&given.map_or_else(default_path, |path| Ok(path.to_owned()))?)?;
        if store.owner == Owner::Trusted
            && let Err(error) = store.sweep()
        {
            tool.report(&error);
        }
        Ok(store)
    }

    /// [`open_for`](Self::open_for), for programs that make no store; `None` if it is absent.
    pub fn open_existing(tool: Tool, given: Option<&Path>) -> Result<Option<Self>> {
        let path = given.map_or_else(default_path, |path| Ok(path.to_owned()))?;
        if exists(path.join(LAYERS))? {
            Self::open_for(tool, Some(&path)).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Opens the store, and makes it with mode 0700 if it is absent: only its owner may execute the
    /// setuid programs of an image. A store that another user owns or can change is an error. The owner
    /// may be unmapped in a user namespace, which makes the store read-only.
    pub fn open(path: &Path) -> Result<Self> {
        let absent = || Error::new(format_args!("store {}: is absent", path.display()));
        let directory = open_chain(path, PURPOSE, true)?.ok_or_else(absent)?;
        // No other user can change the path after the check.
        let path = std::fs::canonicalize(path).on("open", path)?;
        let owner = check(&directory, &path)?;
        let part = |name: &str| {
            let path = path.join(name);
            let part = match sys::open_dir_to_read(&directory, name.as_bytes()) {
                Err(Errno::NOENT) => {
                    private_dir::make(&directory, name).on("mkdir", &path)?;
                    sys::open_dir_to_read(&directory, name.as_bytes())
                }
                other => other,
            };
            let part = part.on("open", &path)?;
            check(&part, &path)?;
            Ok::<OwnedFd, Error>(part)
        };
        let (layers, sums, blobs) = (part(LAYERS)?, part(SUMS)?, part(BLOBS)?);
        let (images, tmp) = (part(IMAGES)?, part(TMP)?);
        Ok(Self { path, owner, layers, sums, blobs, images, tmp })
    }

    /// An error if the store is read-only.
    pub fn check_writable(&self) -> Result<()> {
        if self.owner == Owner::Trusted {
            return Ok(());
        }
        let why = "its owner has no number in this user namespace, so it can only be read";
        Err(Error::new(format_args!("store {}: {why}", self.path.display())).hint(PURPOSE.hint))
    }

    /// Removes the work directories of dead pulls, which have no lock. An error does not stop the removal of
    /// the other directories.
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
        match temporary::remove_unlocked(&self.tmp, name) {
            Err(Errno::LOOP | Errno::NXIO) => remove_tree(&self.tmp, name),
            other => other,
        }
    }

    /// The directory of temporary files.
    pub fn scratch(&self) -> PathBuf {
        self.path.join(TMP)
    }

    pub fn layer_path(&self, name: &str) -> PathBuf {
        self.path.join(LAYERS).join(name)
    }

    /// Opens a layer. The result is `None` if the layer is absent.
    pub fn layer(&self, name: &str) -> Result<Option<OwnedFd>> {
        match sys::open_dir_to_read(&self.layers, name.as_bytes()) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e).on("open", self.layer_path(name)),
        }
    }

    /// Opens a layer to read its files, and keeps jc-rmi from its removal until the descriptor is closed. The result is
    /// `None` if the layer is absent.
    pub fn hold_layer(&self, name: &str) -> Result<Option<OwnedFd>> {
        let path = self.layer_path(name);
        while let Some(layer) = self.layer(name)? {
            match lock::share(&layer, &path) {
                // jc-rmi removes nothing from a file system without locks.
                Err(e) if NO_LOCKS.contains(&e.errno()) => {}
                locked => locked?,
            }
            // A removal can begin between the opening and the lock.
            if self.has_layer(name, &layer)? {
                return Ok(Some(layer));
            }
        }
        Ok(None)
    }

    /// Whether a name still leads to an open layer.
    pub fn has_layer(&self, name: &str, layer: &OwnedFd) -> Result<bool> {
        is_named(&self.layers, name, layer, self.layer_path(name))
    }

    /// Opens the sums of a layer. The result is `None` if they are absent.
    pub fn sums(&self, name: &str) -> Result<Option<File>> {
        sys::open_file(&self.sums, name.as_bytes()).on("open", self.path.join(SUMS).join(name))
    }

    /// A manifest or configuration with the right digest, if the store has it.
    pub fn blob(&self, digest: &Digest) -> Option<Vec<u8>> {
        let name = digest.file_name();
        let path = self.path.join(BLOBS).join(&name);
        let bytes = read(&self.blobs, &name, MAX_DOCUMENT, &path).ok()??;
        digest.check(&bytes).is_ok().then_some(bytes)
    }
}

/// An error if another user owns a directory of the store or can change it.
fn check(directory: &OwnedFd, path: &Path) -> Result<Owner> {
    let stat = rustix::fs::fstat(directory).on("stat", path)?;
    let owner = Owner::of(&stat)?;
    let why = match owner {
        Owner::Foreign => "belongs to another user",
        _ if stat.st_mode & WRITABLE != 0 => "is writable by other users",
        _ => return Ok(owner),
    };
    Err(Error::new(format_args!("store {}: {why}", path.display())).hint(PURPOSE.hint))
}

/// Reads a regular file of at most `limit` bytes. The result is `None` if the file is absent.
fn read(directory: &OwnedFd, name: &str, limit: u64, path: &Path) -> Result<Option<Vec<u8>>> {
    let file = sys::open_file(directory, name.as_bytes()).on("read", path)?;
    file.map(|file| read_at_most(file, limit, path)).transpose()
}
