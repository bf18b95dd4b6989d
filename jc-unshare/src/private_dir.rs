//! Directories with paths that no other user can redirect.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawMode, Stat};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::error::{Absent, Context, Error, Result};
use crate::platform::LOOKUP;
use crate::userns;

/// Permission bits with which other users can change a directory.
pub const WRITABLE: RawMode = 0o022;

/// The most symbolic links in one path, as in path_resolution(7).
const LINKS: usize = 40;

/// The use of a directory, for error messages.
#[derive(Clone, Copy, Debug)]
pub struct Purpose {
    /// The directory in the terms of the manual.
    pub name: &'static str,
    /// The option or variable that names another directory.
    pub hint: &'static str,
}

/// The trust in the owner of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Owner {
    /// Root or the caller.
    Trusted,
    /// A user without an ID in this user namespace.
    Unmapped,
    /// Another user.
    Foreign,
}

impl Owner {
    /// The owner of a file.
    pub fn of(stat: &Stat) -> Result<Self> {
        Ok(match stat.st_uid {
            0 => Self::Trusted,
            uid if uid == geteuid().as_raw() => Self::Trusted,
            uid if is_overflow(uid)? => Self::Unmapped,
            _ => Self::Foreign,
        })
    }
}

/// Whether users other than root and the caller can put entries into a directory.
pub fn is_shared(directory: &Stat) -> Result<bool> {
    Ok(directory.st_mode & WRITABLE != 0 || Owner::of(directory)? != Owner::Trusted)
}

/// Whether another user may have put an entry into a directory, to redirect the caller.
pub fn is_planted(directory: &Stat, entry: &Stat) -> Result<bool> {
    Ok(is_shared(directory)? && Owner::of(entry)? != Owner::Trusted)
}

/// The fault of a planted entry, for error messages.
pub const PLANTED: &str = "another user has put it into a directory that others write to";

/// Opens a directory for path lookups beneath it, and checks that no other user can redirect the path: each
/// directory and each symbolic link on the way belongs to root or to the caller, and other users can write
/// only to sticky directories. In a user namespace the owner may be unmapped, like root of the host.
/// If `makes` is set, missing directories are made with mode 0700. The result is `None` if the directory is
/// absent.
pub fn open_chain(path: &Path, purpose: Purpose, makes: bool) -> Result<Option<OwnedFd>> {
    let flags = LOOKUP | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = || rustix::fs::open("/", flags, Mode::empty()).on("open", "/");
    let check = |stat: &Stat, at: &Path| {
        let Some(fault) = fault(stat)? else { return Ok(()) };
        let message = format_args!("{} {}: {} {fault}", purpose.name, path.display(), at.display());
        Err(Error::new(message).hint(purpose.hint))
    };
    let (mut directory, mut at, mut links) = (top()?, PathBuf::from("/"), 0);
    let stat = rustix::fs::fstat(&directory).on("stat", "/")?;
    check(&stat, &at)?;
    let absolute = std::path::absolute(path).on("find", path)?;
    let mut rest = reversed(&absolute);
    while let Some(name) = rest.pop() {
        // A checked name is not redirected later: only root and the caller can rename it in a checked directory.
        let stat = match rustix::fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) if makes => {
                let made = make(&directory, &name).on("mkdir", at.join(&name));
                made.map_err(|error| error.hint(purpose.hint))?;
                rest.push(name);
                continue;
            }
            Err(Errno::NOENT | Errno::NOTDIR) if !makes => return Ok(None),
            other => other.on("stat", at.join(&name))?,
        };
        let next = at.join(&name);
        check(&stat, &next)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            let opened = rustix::fs::openat(&directory, &name, flags, Mode::empty());
            (directory, at) = (opened.on("open", &next)?, next);
            continue;
        }
        links += 1;
        if links > LINKS {
            return Err(Errno::LOOP).on("open", path);
        }
        let target = rustix::fs::readlinkat(&directory, &name, Vec::new()).on("readlink", &next)?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        if target.is_absolute() {
            (directory, at) = (top()?, PathBuf::from("/"));
        }
        rest.extend(reversed(&target));
    }
    Ok(Some(directory))
}

/// Makes a directory with mode 0700, whatever the umask is. An existing directory is no error.
pub fn make(parent: &OwnedFd, name: impl rustix::path::Arg + Copy) -> rustix::io::Result<()> {
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) => rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty()),
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

/// The names of a path in reverse order.
fn reversed(path: &Path) -> Vec<OsString> {
    let names = path.components().rev().filter(|part| *part != Component::RootDir);
    names.map(|part| part.as_os_str().to_owned()).collect()
}

/// The reason why one file on the way to a directory is not trusted, or `None` if it is.
fn fault(stat: &Stat) -> Result<Option<&'static str>> {
    if Owner::of(stat)? == Owner::Foreign {
        return Ok(Some("belongs to another user"));
    }
    let is_sticky = Mode::from_raw_mode(stat.st_mode).contains(Mode::SVTX);
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory if stat.st_mode & WRITABLE != 0 && !is_sticky => {
            Some("is writable by other users, and not sticky")
        }
        FileType::Directory | FileType::Symlink => None,
        _ => Some("is not a directory"),
    })
}

/// Whether an ID is that of all owners without an ID in this user namespace (user_namespaces(7), "Unmapped
/// user and group IDs").
fn is_overflow(uid: u32) -> Result<bool> {
    let path = "/proc/sys/kernel/overflowuid";
    let text = std::fs::read_to_string(path).on("read", path).absent()?;
    // Without procfs there is no sign of another user namespace.
    let is_overflow = text.is_some_and(|text| text.trim().parse() == Ok(uid));
    Ok(is_overflow && !userns::is_initial()?)
}
