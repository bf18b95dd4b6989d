//! The path of the directory of all state directories, and the check of the directories on the way.

use std::path::{Path, PathBuf};

use jc_unshare::private_dir::{self, Purpose};
use jc_unshare::store::is_root;
use jc_unshare::{Context, Error, Result, path_variable};
use rustix::fd::OwnedFd;
use rustix::fs::{Access, FileType, Stat, access, lstat};
use rustix::io::Errno;
use rustix::process::geteuid;

const PURPOSE: Purpose = Purpose {
    name: "state directory",
    hint: "--state-dir DIR, or JC_STATE_DIR, names another directory",
};

/// The path of the directory of all state directories of a user.
#[derive(Debug)]
pub struct BasePath {
    pub path: PathBuf,
    /// Whether the path is the default: neither an option nor JC_STATE_DIR names it.
    pub is_default: bool,
}

impl BasePath {
    /// The path that the option, the environment or the default names.
    pub fn new(option: Option<PathBuf>) -> Result<Self> {
        let named = option.or_else(|| path_variable("JC_STATE_DIR"));
        let is_default = named.is_none();
        let path = named.map_or_else(default, Ok)?;
        Ok(Self { path: std::path::absolute(&path).on("find", &path)?, is_default })
    }
}

/// The first default of jc-state(5) that exists for this user.
fn default() -> Result<PathBuf> {
    let user = geteuid();
    if user.is_root() && reaches_run()? {
        return Ok("/run/jc".into());
    }
    if let Some(runtime) = path_variable("XDG_RUNTIME_DIR") {
        return Ok(runtime.join("jc"));
    }
    // A login session sets XDG_RUNTIME_DIR, and cron(8) does not. Both must use the same directory.
    let runtime = PathBuf::from(format!("/run/user/{user}"));
    match lstat(&runtime) {
        Ok(stat) if is_directory(&stat) && stat.st_uid == user.as_raw() => {
            return Ok(runtime.join("jc"));
        }
        Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => {}
        Err(e) => return Err(e).on("stat", &runtime),
    }
    let home = path_variable("HOME").ok_or_else(|| {
        hinted(Error::new("state directory: neither XDG_RUNTIME_DIR nor HOME names a place for it"))
    })?;
    Ok(home.join(".local/state/jc"))
}

/// Whether root has a directory in /run. Root of a user namespace may be any user there.
fn reaches_run() -> Result<bool> {
    if is_root()? {
        return Ok(true);
    }
    match access("/run", Access::WRITE_OK) {
        Err(Errno::ACCESS | Errno::ROFS | Errno::NOENT) => Ok(false),
        other => other.on("access", "/run").map(|()| true),
    }
}

/// Adds a hint about the option and the variable that name another directory.
pub fn hinted(error: Error) -> Error {
    error.hint(PURPOSE.hint)
}

/// Opens a directory on the way to a state directory, as [`private_dir::open_chain`] does.
pub fn open_chain(path: &Path, makes: bool) -> Result<Option<OwnedFd>> {
    private_dir::open_chain(path, PURPOSE, makes)
}

/// Whether a file is a directory.
pub fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}
