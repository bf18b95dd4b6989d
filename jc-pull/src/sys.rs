//! Small steps on directory fds that several modules take. Names here are single path components.

#[cfg_attr(target_os = "linux", path = "sys/linux.rs")]
#[cfg_attr(not(target_os = "linux"), path = "sys/portable.rs")]
mod platform;

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::{Errno, Result};
use rustix::process::Rlimit;

use crate::tar::Time;

pub use platform::{
    clear_acls, forges_whiteout, id_map, is_whiteout, make_whiteout, mknod, open_beneath,
    set_xattrs_at, sync, xattrs_at,
};

/// What makes a directory hide those beneath it (overlayfs.rst, "Whiteouts and opaque directories"):
/// for overlays of the machine's root, and for those that a user namespace mounts, with `userxattr`.
const OPAQUE: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];
/// Tells overlayfs that a directory may hold whiteouts even where it merges with none; an empty
/// value is "origin unknown".
const ORIGIN: [&str; 2] = ["trusted.overlay.origin", "user.overlay.origin"];

/// Different each time, on every platform; good for names and jitter, not for secrets.
pub fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// Allows this process as many descriptors as it may have: an image of many layers needs one for each,
/// and more than the 1024 that are usual.
pub fn allow_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where this is not allowed, images of fewer layers can still be opened.
    let _: Result<()> = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// The path for an error message.
pub fn as_path(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path))
}

/// Opens a directory in a directory, never through a symbolic link.
pub fn open_dir(parent: impl AsFd, name: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Opens a regular file in a directory for reading; nothing if the name is absent. Anything else is an
/// error, and opening it waits for nobody: fifo(7).
pub fn open_file(parent: impl AsFd, name: &[u8]) -> io::Result<Option<File>> {
    let check = |stat: &Stat| match file_type(stat) {
        FileType::RegularFile => Ok(()),
        _ => Err(io::Error::other("not a regular file")),
    };
    match stat(parent.as_fd(), name) {
        Err(Errno::NOENT) => return Ok(None),
        other => check(&other?)?,
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    check(&rustix::fs::fstat(&fd)?)?;
    Ok(Some(File::from(fd)))
}

/// stat(2) of a name, not following it.
pub fn stat(parent: impl AsFd, name: &[u8]) -> Result<Stat> {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// What a stat(2) says the thing is.
pub fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Whether the directory hides those beneath it.
pub fn is_opaque(directory: impl AsFd) -> bool {
    let says_so = |key| {
        let mut value = [0; 2];
        let length = rustix::fs::fgetxattr(directory.as_fd(), key, &mut value[..]);
        matches!(length, Ok(1) if value[0] == b'y')
    };
    OPAQUE.into_iter().any(says_so)
}

/// Hides what directories beneath hold.
pub fn set_opaque(directory: impl AsFd) -> Result<()> {
    mark(directory, OPAQUE, b"y")
}

/// Says that the directory may hold whiteouts.
pub fn set_origin(directory: impl AsFd) -> Result<()> {
    mark(directory, ORIGIN, b"")
}

/// For both kinds of overlays, if possible. Outside of the machine's own user namespace nobody may set
/// the first; old kernels' tmpfs takes no second.
fn mark(directory: impl AsFd, keys: [&str; 2], value: &[u8]) -> Result<()> {
    let set = |key| {
        let flags = rustix::fs::XattrFlags::empty();
        match rustix::fs::fsetxattr(directory.as_fd(), key, value, flags) {
            Ok(()) => Ok(None),
            Err(e @ (Errno::PERM | Errno::OPNOTSUPP)) => Ok(Some(e)),
            Err(e) => Err(e),
        }
    };
    match keys.map(set) {
        [Ok(Some(e)), Ok(Some(_))] | [Err(e), _] | [_, Err(e)] => Err(e),
        _ => Ok(()),
    }
}

/// What helps who may not give files away.
pub const OWNERS_HINT: &str = "file owners need root, or a user namespace that maps them \
    (jc-unshare -U --map-auto -- jc-pull ...); in one that maps only root, --ignore-chown";

/// Makes a new directory what it is where nothing else is said, whatever its parent hands on.
pub fn reset_owner(directory: &OwnedFd) -> Result<()> {
    let (root, group) = (rustix::fs::Uid::ROOT, rustix::fs::Gid::ROOT);
    rustix::fs::fchown(directory, Some(root), Some(group))?;
    rustix::fs::fchmod(directory, Mode::from_raw_mode(0o755))
}

/// Modification time only; the access time stays what it is.
pub fn timestamps(mtime: Time) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec {
            tv_sec: mtime.seconds,
            tv_nsec: i64::from(mtime.nanoseconds),
        },
    }
}

/// The modification time that stat(2) tells.
pub fn mtime(stat: &Stat) -> Time {
    Time {
        seconds: stat.st_mtime,
        nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
    }
}

/// Whether overlayfs itself keeps something there.
pub fn is_overlay_xattr(key: &[u8]) -> bool {
    key.starts_with(b"trusted.overlay.") || key.starts_with(b"user.overlay.")
}

/// Extended attributes, in the order of their names.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Those of an open file, but for overlayfs' own; none where the file system knows none.
pub fn xattrs(fd: impl AsFd) -> Result<Xattrs> {
    let fd = fd.as_fd();
    read_xattrs(
        |list| rustix::fs::flistxattr(fd, list),
        |key, to| rustix::fs::fgetxattr(fd, key, to),
    )
}

/// One of an open file's extended attributes, where the file has it.
pub fn xattr(fd: impl AsFd, key: &[u8]) -> Result<Option<Vec<u8>>> {
    match fill(|room| rustix::fs::fgetxattr(fd.as_fd(), key, room)) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        other => other.map(Some),
    }
}

/// The names of an open file's extended attributes, overlayfs' own too.
pub fn xattr_names(fd: impl AsFd) -> Result<Vec<Vec<u8>>> {
    list_xattrs(|list| rustix::fs::flistxattr(fd.as_fd(), list))
}

/// Rooms for a list of names or a value, in bytes: one for nearly all, and what Linux has at the most
/// (xattr(7)).
const ROOMS: [usize; 2] = [256, 64 << 10];

fn fill(call: impl Fn(&mut [u8]) -> Result<usize>) -> Result<Vec<u8>> {
    let mut outcome = Err(Errno::RANGE);
    for room in ROOMS {
        let mut bytes = vec![0; room];
        outcome = call(&mut bytes).map(|length| {
            bytes.truncate(length);
            bytes
        });
        if !matches!(outcome, Err(Errno::RANGE)) {
            break;
        }
    }
    outcome
}

fn list_xattrs(list: impl Fn(&mut [u8]) -> Result<usize>) -> Result<Vec<Vec<u8>>> {
    let names = match fill(list) {
        Err(Errno::OPNOTSUPP) => Vec::new(),
        other => other?,
    };
    Ok(names.split(|b| *b == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
}

fn read_xattrs(
    list: impl Fn(&mut [u8]) -> Result<usize>,
    get: impl Fn(&[u8], &mut [u8]) -> Result<usize>,
) -> Result<Xattrs> {
    let mut found = Vec::new();
    for key in list_xattrs(list)?.into_iter().filter(|key| !is_overlay_xattr(key)) {
        let value = fill(|room| get(&key, room))?;
        found.push((key, value));
    }
    found.sort();
    Ok(found)
}

/// Calls `visit` with each name in the directory but `.` and `..`.
pub fn for_each_name(
    directory: impl AsFd,
    mut visit: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        match CStr::to_bytes(entry.file_name()) {
            b"." | b".." => {}
            name => visit(name)?,
        }
    }
    Ok(())
}
