//! System calls on names in open directories. A name is one path component.

// On other systems the file portable.rs takes the place of the module.
#[cfg_attr(not(target_os = "linux"), path = "sys/portable.rs")]
mod linux;

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use jc_unshare::descriptor::check_regular;
pub use jc_unshare::descriptor::{open_dir_to_read, open_regular};
use jc_unshare::store::OPAQUE;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::{Errno, Result};

use crate::tar::Time;

pub use linux::{
    all_xattrs_at, clear_acls, forges_whiteout, id_map, inherit_fd, is_whiteout, make_whiteout,
    mknod, open_beneath, set_xattrs_at, sync, trace_begin, trace_state,
};

/// The attributes for a directory that has whiteouts without being merged. An empty value is "origin
/// unknown".
const ORIGIN: [&str; 2] = ["trusted.overlay.origin", "user.overlay.origin"];

/// The state of a traced thread.
#[allow(dead_code, reason = "other platforms trace no thread")]
pub enum Traced {
    Runs,
    Stopped,
    Ended,
}

pub fn as_path(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path))
}

/// Opens a regular file in a directory for reading. The result is `None` if the name is absent. Symbolic
/// links and other types of files are errors, and are not opened.
pub fn open_file(parent: impl AsFd, name: &[u8]) -> io::Result<Option<File>> {
    let opened = stat(parent.as_fd(), name).map_err(io::Error::from).and_then(|stat| {
        check_regular(&stat)?;
        open_regular(parent, name, OFlags::NOFOLLOW)
    });
    match opened {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

/// stat(2) of a name. A symbolic link is not followed.
pub fn stat(parent: impl AsFd, name: &[u8]) -> Result<Stat> {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
}

pub fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Device and inode. Their types differ between platforms.
#[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)]
pub fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev as u64, stat.st_ino as u64)
}

pub fn is_opaque(directory: impl AsFd) -> bool {
    let says_so = |key| {
        let mut value = [0; 2];
        let length = rustix::fs::fgetxattr(directory.as_fd(), key, &mut value[..]);
        matches!(length, Ok(1) if value[0] == b'y')
    };
    OPAQUE.into_iter().any(says_so)
}

/// Makes a directory opaque: it hides the lower directories. `EPERM` or `EOPNOTSUPP` if neither kind of
/// overlay can have the mark.
pub fn set_opaque(directory: impl AsFd) -> Result<()> {
    mark(directory, OPAQUE, b"y")
}

/// Marks a directory that may have whiteouts. The errors are those of [`set_opaque`].
pub fn set_origin(directory: impl AsFd) -> Result<()> {
    mark(directory, ORIGIN, b"")
}

/// Sets an attribute for both kinds of overlays, or for one if the other is not possible: outside of the
/// initial user namespace no process can set the first, and the tmpfs of old kernels has no second.
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

/// The hint for a user who cannot give files away.
pub const OWNERS_HINT: &str = "file owners need root, or a user namespace that maps them \
    (jc-unshare -U --map-auto -- jc-pull ...); --ignore-chown gives all files to the caller";

/// Gives a new directory the owner and mode of a directory that no layer lists. A setgid parent may have
/// given it others. `EPERM` if the caller may not give files away.
pub fn reset_owner(directory: &OwnedFd) -> Result<()> {
    let (root, group) = (rustix::fs::Uid::ROOT, rustix::fs::Gid::ROOT);
    rustix::fs::fchown(directory, Some(root), Some(group))?;
    rustix::fs::fchmod(directory, Mode::from_raw_mode(0o755))
}

/// The modification time. The access time stays.
pub fn timestamps(mtime: Time) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec {
            tv_sec: mtime.seconds,
            tv_nsec: i64::from(mtime.nanoseconds),
        },
    }
}

pub fn mtime(stat: &Stat) -> Time {
    Time {
        seconds: stat.st_mtime,
        nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
    }
}

/// Whether overlayfs uses the attribute itself.
pub fn is_overlay_xattr(key: &[u8]) -> bool {
    key.starts_with(b"trusted.overlay.") || key.starts_with(b"user.overlay.")
}

/// Extended attributes, sorted by name.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// The attributes of an open file, without those of overlayfs. Empty if the file system has no
/// attributes.
pub fn xattrs(fd: impl AsFd) -> Result<Xattrs> {
    all_xattrs(fd).map(without_overlay)
}

fn without_overlay(mut all: Xattrs) -> Xattrs {
    all.retain(|(key, _)| !is_overlay_xattr(key));
    all
}

/// The attributes of a file that may be unreadable, without those of overlayfs.
pub fn xattrs_at(parent: impl AsFd, name: &[u8]) -> Result<Xattrs> {
    all_xattrs_at(parent, name).map(without_overlay)
}

/// All attributes of an open file.
pub fn all_xattrs(fd: impl AsFd) -> Result<Xattrs> {
    let fd = fd.as_fd();
    read_xattrs(
        |list| rustix::fs::flistxattr(fd, list),
        |key, to| rustix::fs::fgetxattr(fd, key, to),
    )
}

/// An attribute of an open file, if the file has it.
pub fn xattr(fd: impl AsFd, key: &[u8]) -> Result<Option<Vec<u8>>> {
    match fill(|room| rustix::fs::fgetxattr(fd.as_fd(), key, room)) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        other => other.map(Some),
    }
}

/// The names of the attributes of an open file, with those of overlayfs.
pub fn xattr_names(fd: impl AsFd) -> Result<Vec<Vec<u8>>> {
    list_xattrs(|list| rustix::fs::flistxattr(fd.as_fd(), list))
}

/// Buffer sizes for a list of names or a value, in bytes: one for nearly all, and the maximum of Linux
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
    for key in list_xattrs(list)? {
        let value = fill(|room| get(&key, room))?;
        found.push((key, value));
    }
    found.sort();
    Ok(found)
}

/// Calls `visit` for each name in a directory, except `.` and `..`.
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
