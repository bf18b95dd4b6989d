//! The same functions for other platforms, which have no overlayfs.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dev, FileType, Mode, Stat, Uid};
use rustix::io::{Errno, Result};

use super::{Traced, Xattrs, file_type, open_dir_to_read};
use crate::tar::EntryKind;

/// The owner of the symbolic links that stand for whiteouts, since no overlayfs mounts them.
const NOBODY: u32 = u32::MAX - 1;

/// An error: these platforms have no such device nodes in layers.
pub fn mknod(_: impl AsFd, _: &[u8], _: FileType, _: Mode, _: Dev) -> Result<()> {
    Err(Errno::NOTSUP)
}

/// Makes a symbolic link that stands for a whiteout.
pub fn make_whiteout(fd: impl AsFd, name: &[u8]) -> Result<()> {
    let fd = fd.as_fd();
    rustix::fs::symlinkat("whiteout", fd, name)?;
    let owner = Some(Uid::from_raw(NOBODY));
    rustix::fs::chownat(fd, name, owner, None, AtFlags::SYMLINK_NOFOLLOW)
}

pub fn is_whiteout(stat: &Stat) -> bool {
    file_type(stat) == FileType::Symlink && stat.st_uid == NOBODY
}

/// Whether an entry would be taken for a whiteout.
pub fn forges_whiteout(kind: &EntryKind, uid: u32) -> bool {
    matches!(kind, EntryKind::Symlink(_)) && uid == NOBODY
}

/// The access control lists of other platforms have another form.
pub fn clear_acls(_: &OwnedFd) -> Result<()> {
    Ok(())
}

/// Opens a directory below `root`. `ELOOP` or `ENOTDIR` if a component is a symbolic link.
pub fn open_beneath(root: &OwnedFd, parts: &[&[u8]]) -> Result<OwnedFd> {
    parts.iter().try_fold(open_dir_to_read(root, ".")?, |at, part| open_dir_to_read(&at, *part))
}

/// No attributes, since none are set.
pub fn all_xattrs_at(_: impl AsFd, _: &[u8]) -> Result<Xattrs> {
    Ok(Vec::new())
}

/// An error if there are attributes to set.
pub fn set_xattrs_at(_: impl AsFd, _: &[u8], xattrs: &Xattrs) -> Result<()> {
    if xattrs.is_empty() { Ok(()) } else { Err(Errno::OPNOTSUPP) }
}

/// Writes all data of all file systems to the disk.
pub fn sync(_: &OwnedFd) -> Result<()> {
    rustix::fs::sync();
    Ok(())
}

/// None: there are no user namespaces.
pub fn id_map(_: bool) -> jc_unshare::Result<Option<&'static str>> {
    Ok(None)
}

/// An error: these platforms have no containers.
pub fn trace_begin(_: u32) -> std::io::Result<()> {
    Err(Errno::NOTSUP.into())
}

/// The end of a thread, since none is traced.
pub fn trace_state(_: u32) -> std::io::Result<Traced> {
    Ok(Traced::Ended)
}

/// An error: these platforms have no containers.
pub fn inherit_fd(_: u32, option: &str) -> jc_unshare::Result<OwnedFd> {
    Err(jc_unshare::Error::usage(format_args!("{option}: this platform has no containers")))
}
