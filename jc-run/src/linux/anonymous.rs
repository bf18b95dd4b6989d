//! `volumes/ID` of the store (jc-store(5)): the volumes that the image of one container declares, and the changes to
//! layers that are kept. The state directory, which may be in memory, has a symbolic link to the directory, and the
//! directory has a symbolic link back.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use jc_unshare::descriptor::open_dir_to_read;
use jc_unshare::private_dir::{self, Purpose, WRITABLE, open_chain};
use jc_unshare::{Context, Error, Result, lock, store};
use rustix::fd::OwnedFd;
use rustix::fs::{Dir, FlockOperation, Mode, flock, fstat, lstat, mkdirat, readlinkat, symlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::files::StateDir;
use super::state::is_id;
use super::tree;

/// The directory in the store, and the link in the state directory.
pub const VOLUMES: &str = "volumes";

/// The use of the store, for errors.
pub const PURPOSE: Purpose = Purpose { name: "store", hint: "JC_STORE names another directory" };

/// The link to the state directory.
pub const STATE: &str = "state";

/// The directory of a container's volumes and changes.
pub fn path(id: &str) -> Result<PathBuf> {
    Ok(all()?.join(id))
}

fn all() -> Result<PathBuf> {
    let store = store::default_path()?;
    Ok(std::path::absolute(&store).on("find", &store)?.join(VOLUMES))
}

/// Makes the directory for the container of the state directory `bundle`. The directory is locked until the result is
/// dropped.
pub fn create(path: &Path, bundle: &Path) -> Result<OwnedFd> {
    let (parent, id) = split(path)?;
    let all = open(parent, true)?.ok_or(Errno::NOENT).on("open", parent)?;
    // The lock keeps a sweep away until the directory has its link.
    lock::share(&all, parent)?;
    mkdirat(&all, id, Mode::RWXU).on("mkdir", path)?;
    let volumes = open_dir_to_read(&all, id).on("open", path)?;
    lock::share(&volumes, path)?;
    symlinkat(bundle, &volumes, STATE).on("link", path.join(STATE))?;
    let link = bundle.join(VOLUMES);
    symlink(path, &link).on("link", &link)?;
    Ok(volumes)
}

/// Removes the directory that the link in a state directory names. The link is followed only to a directory with the
/// container's ID in a `volumes` directory of the caller. An absent link is no error.
pub fn remove(directory: &StateDir, id: &str) -> Result<()> {
    let path = match readlinkat(directory, VOLUMES, Vec::new()) {
        Err(Errno::NOENT | Errno::INVAL) => return Ok(()),
        other => other.on("readlink", directory.path().join(VOLUMES))?,
    };
    let path = PathBuf::from(OsStr::from_bytes(path.to_bytes()));
    let (parent, name) = split(&path)?;
    if name != id || parent.file_name() != Some(VOLUMES.as_ref()) || !path.is_absolute() {
        return Ok(());
    }
    match open(parent, false)? {
        Some(all) => tree::remove(&all, id, &path),
        None => Ok(()),
    }
}

/// Removes the directories of containers whose state directory is absent. Returns the errors.
pub fn sweep() -> Vec<Error> {
    // Without a store there are no volumes.
    let Ok(parent) = all() else { return Vec::new() };
    match open(&parent, false) {
        Ok(Some(all)) => sweep_in(&all, &parent).unwrap_or_else(|error| vec![error]),
        Ok(None) => Vec::new(),
        Err(error) => vec![error],
    }
}

fn sweep_in(all: &OwnedFd, parent: &Path) -> Result<Vec<Error>> {
    match flock(all, FlockOperation::NonBlockingLockExclusive) {
        // A container starts, so the next sweep reads the directory.
        Err(Errno::WOULDBLOCK) => return Ok(Vec::new()),
        locked => locked.on("flock", parent)?,
    }
    let mut errors = Vec::new();
    for entry in Dir::read_from(all).on("read", parent)? {
        let entry = entry.on("read", parent)?;
        if let Ok(id) = entry.file_name().to_str()
            && is_id(id)
        {
            errors.extend(sweep_one(all, &parent.join(id), id).err());
        }
    }
    Ok(errors)
}

fn sweep_one(all: &OwnedFd, path: &Path, id: &str) -> Result<()> {
    let volumes = match open_dir_to_read(all, id) {
        Err(Errno::NOENT) => return Ok(()),
        other => other.on("open", path)?,
    };
    match flock(&volumes, FlockOperation::NonBlockingLockExclusive) {
        // The container runs, and its state directory is visible in another mount namespace only.
        Err(Errno::WOULDBLOCK) => return Ok(()),
        locked => locked.on("flock", path)?,
    }
    let state = match readlinkat(&volumes, STATE, Vec::new()) {
        Err(Errno::NOENT) => None,
        other => Some(other.on("readlink", path.join(STATE))?),
    };
    if let Some(state) = state {
        match lstat(state.as_c_str()) {
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(e) => return Err(e).on("stat", OsStr::from_bytes(state.to_bytes())),
            Ok(_) => return Ok(()),
        }
    }
    tree::remove(all, id, path)
}

/// Opens `volumes` of a store, and makes it if `makes` is set. `None`: the directory is absent.
fn open(path: &Path, makes: bool) -> Result<Option<OwnedFd>> {
    let (store, name) = split(path)?;
    let Some(store) = open_chain(store, PURPOSE, makes)? else { return Ok(None) };
    if makes {
        private_dir::make(&store, name).on("mkdir", path)?;
    }
    let volumes = match open_dir_to_read(&store, name) {
        Err(Errno::NOENT) => return Ok(None),
        other => other.on("open", path)?,
    };
    let stat = fstat(&volumes).on("stat", path)?;
    if stat.st_uid != geteuid().as_raw() || stat.st_mode & WRITABLE != 0 {
        let path = path.display();
        return Err(Error::new(format_args!(
            "{path}: belongs to other users, or they can write to it"
        )));
    }
    Ok(Some(volumes))
}

fn split(path: &Path) -> Result<(&Path, &str)> {
    let parts = path.parent().zip(path.file_name().and_then(OsStr::to_str));
    parts.ok_or_else(|| Error::new(format_args!("{}: has no name", path.display())))
}
