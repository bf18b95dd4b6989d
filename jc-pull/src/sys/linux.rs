//! Device nodes, whiteouts, and attributes of files that cannot be opened, as Linux has them.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Dev, FileType, Mode, OFlags, ResolveFlags, Stat, XattrFlags};
use rustix::io::{Errno, Result};

use super::{Xattrs, file_type, read_xattrs};
use crate::tar::{Kind, acl};

/// mknod(2) in a directory.
pub fn mknod(fd: impl AsFd, name: &[u8], kind: FileType, mode: Mode, dev: Dev) -> Result<()> {
    rustix::fs::mknodat(fd, name, kind, mode, dev)
}

/// Hides a name as overlayfs does: by a character device 0:0.
pub fn make_whiteout(fd: impl AsFd, name: &[u8]) -> Result<()> {
    rustix::fs::mknodat(fd, name, FileType::CharacterDevice, Mode::empty(), 0)
}

/// Whether this is how overlayfs says that a name is gone.
pub fn is_whiteout(stat: &Stat) -> bool {
    file_type(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Whether an entry of that kind and owner would be mistaken for a whiteout.
pub fn forges_whiteout(kind: &Kind, _: u32) -> bool {
    matches!(kind, Kind::Char(0, 0))
}

/// Takes away the access control lists that a directory got from its parent.
pub fn clear_acls(fd: &OwnedFd) -> Result<()> {
    for list in [acl::ACCESS, acl::DEFAULT] {
        match rustix::fs::fremovexattr(fd, list) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            other => return other,
        }
    }
    Ok(())
}

/// Opens a directory beneath `root`, only to refer to it. `ELOOP` if a symbolic link is on the way.
pub fn open_beneath(root: &OwnedFd, parts: &[&[u8]]) -> Result<OwnedFd> {
    let path = if parts.is_empty() { b".".to_vec() } else { parts.join(&b'/') };
    let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)
}

/// A name in /proc that ends at the very inode: an O_PATH fd itself takes no xattr calls.
fn refer(parent: impl AsFd, name: &[u8]) -> Result<(OwnedFd, String)> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    Ok((fd, path))
}

/// The attributes of what perhaps cannot be opened, but for overlayfs' own.
pub fn xattrs_at(parent: impl AsFd, name: &[u8]) -> Result<Xattrs> {
    let (_fd, path) = refer(parent, name)?;
    read_xattrs(
        |list| rustix::fs::listxattr(path.as_str(), list),
        |key, to| rustix::fs::getxattr(path.as_str(), key, to),
    )
}

/// Sets attributes of what perhaps cannot be opened.
pub fn set_xattrs_at(parent: impl AsFd, name: &[u8], xattrs: &Xattrs) -> Result<()> {
    let (_fd, path) = refer(parent, name)?;
    xattrs.iter().try_for_each(|(key, value)| {
        rustix::fs::setxattr(path.as_str(), key.as_slice(), value, XattrFlags::empty())
    })
}

/// Writes all data of a file system to the disk: one call for the many files of a layer.
pub fn sync(fd: &OwnedFd) -> Result<()> {
    rustix::fs::syncfs(fd)
}

/// The option of jc-unshare for a user namespace in which this user is root: with all subordinate IDs, or
/// with the user's own ID alone, if that is enough. None if neither is possible.
pub fn id_map(own_is_enough: bool) -> jc_unshare::Result<Option<&'static str>> {
    Ok(match (jc_unshare::has_ranges()?, own_is_enough) {
        (true, _) => Some("--map-auto"),
        (false, true) => Some("--map-root"),
        (false, false) => None,
    })
}
