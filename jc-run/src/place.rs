//! Where state directories are, and the check of the path to that place.

use std::ffi::OsString;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use clap::ArgMatches;
use jc_unshare::{Context, Error, Result};
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, lstat, mkdirat, open, openat, readlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;

/// Permission bits with which other users can change a directory.
pub const WRITABLE: u32 = 0o022;

/// The most symbolic links in one path, as in path_resolution(7).
const LINKS: usize = 40;

/// The directory that holds the state directories of one user.
#[derive(Debug)]
pub struct Place {
    /// Its absolute path.
    pub path: PathBuf,
    /// Whether neither an option nor JC_STATE_DIR names it.
    pub is_default: bool,
}

impl Place {
    /// The directory that the command line, the environment or the default names.
    pub fn of(matches: &ArgMatches) -> Result<Self> {
        let given = matches.get_one::<PathBuf>("state-dir").cloned();
        let named = given.or_else(|| set("JC_STATE_DIR"));
        let is_default = named.is_none();
        let path = named.map_or_else(default, Ok)?;
        Ok(Self { path: std::path::absolute(&path).on("find", &path)?, is_default })
    }
}

fn set(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The first default of jc-state(5) that this user has.
fn default() -> Result<PathBuf> {
    let user = geteuid();
    if user.is_root() {
        return Ok("/run/jc".into());
    }
    if let Some(runtime) = set("XDG_RUNTIME_DIR") {
        return Ok(runtime.join("jc"));
    }
    // A session of the same user elsewhere has XDG_RUNTIME_DIR, and cron(8) has not.
    let runtime = PathBuf::from(format!("/run/user/{user}"));
    match lstat(&runtime) {
        Ok(stat) if is_directory(&stat) && stat.st_uid == user.as_raw() => {
            return Ok(runtime.join("jc"));
        }
        Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => {}
        Err(e) => return Err(e).on("stat", &runtime),
    }
    let home = set("HOME").ok_or_else(|| {
        hinted(Error::new("state directory: neither XDG_RUNTIME_DIR nor HOME names a place for it"))
    })?;
    Ok(home.join(".local/state/jc"))
}

/// Adds how the user names another place.
pub fn hinted(error: Error) -> Error {
    error.hint("--state-dir DIR, or JC_STATE_DIR, names another directory")
}

/// Opens a directory for path lookups beneath it, and checks that no other user can make the path lead
/// elsewhere: each directory and each symbolic link on the way belongs to root or to the caller, and
/// other users can write only to sticky directories. Missing directories are made if `makes`. The
/// result is `None` if the directory is absent.
pub fn open_chain(path: &Path, makes: bool) -> Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = || open("/", flags, Mode::empty()).on("open", "/");
    let mut directory = top()?;
    check_ancestor(&directory, path)?;
    let (mut rest, mut links) = (reversed(path), 0);
    while let Some(name) = rest.pop() {
        let next = match openat(&directory, &name, flags, Mode::empty()) {
            Err(Errno::NOENT) if makes => {
                match mkdirat(&directory, &name, Mode::RWXU) {
                    // Another process has made the same directory.
                    Ok(()) | Err(Errno::EXIST) => rest.push(name),
                    Err(e) => return Err(e).on("mkdir", path),
                }
                continue;
            }
            Err(Errno::NOENT | Errno::NOTDIR) if !makes => return Ok(None),
            other => other.on("open", path)?,
        };
        if check_ancestor(&next, path)? == FileType::Symlink {
            links += 1;
            if links > LINKS {
                return Err(Errno::LOOP).on("open", path);
            }
            let target = readlinkat(&next, "", Vec::new()).on("readlink", path)?;
            let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
            if target.is_absolute() {
                directory = top()?;
            }
            rest.extend(reversed(&target));
        } else {
            directory = next;
        }
    }
    Ok(Some(directory))
}

/// The names of a path, the first at the end.
fn reversed(path: &Path) -> Vec<OsString> {
    let names = path.components().rev().filter(|part| *part != Component::RootDir);
    names.map(|part| part.as_os_str().to_owned()).collect()
}

/// Checks one file on the way to a state directory, and gives its type.
fn check_ancestor(file: &OwnedFd, path: &Path) -> Result<FileType> {
    let stat = fstat(file).on("stat", path)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let refuse = |why: &str| {
        let (path, file) = (path.display(), shown(file));
        Err(hinted(Error::new(format_args!("state directory in {path}: {file} {why}"))))
    };
    if stat.st_uid != 0 && stat.st_uid != geteuid().as_raw() {
        return refuse("belongs to another user");
    }
    let is_sticky = stat.st_mode & Mode::SVTX.as_raw_mode() != 0;
    match kind {
        FileType::Directory if stat.st_mode & WRITABLE != 0 && !is_sticky => {
            refuse("is writable by other users, and not sticky")
        }
        FileType::Directory | FileType::Symlink => Ok(kind),
        _ => refuse("is not a directory"),
    }
}

/// The path of an open file, for an error message.
fn shown(file: &OwnedFd) -> String {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    fs::read_link(link).map_or("a directory".to_owned(), |path| path.display().to_string())
}

/// Whether a file is a directory.
pub fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}
