//! What Linux has and others have not, or not so: device nodes, whiteouts, attributes of what cannot be
//! opened, paths that are resolved inside of a directory.

#[cfg(not(target_os = "linux"))]
pub use elsewhere::{
    clear_acls, forges_whiteout, is_whiteout, make_whiteout, mknod, open_beneath, set_xattrs_at,
    xattrs_at,
};
#[cfg(target_os = "linux")]
pub use linux::{
    clear_acls, forges_whiteout, is_whiteout, make_whiteout, mknod, open_beneath, set_xattrs_at,
    xattrs_at,
};

#[cfg(target_os = "linux")]
mod linux {
    use std::os::fd::{AsFd, AsRawFd, OwnedFd};

    use rustix::fs::{Dev, FileType, Mode, OFlags, ResolveFlags, Stat, XattrFlags};
    use rustix::io::{Errno, Result};

    use super::super::{Xattrs, file_type, read_xattrs};
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
}

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use std::os::fd::{AsFd, OwnedFd};

    use rustix::fs::{AtFlags, Dev, FileType, Mode, Stat, Uid};
    use rustix::io::{Errno, Result};

    use super::super::{Xattrs, file_type, open_dir};
    use crate::tar::Kind;

    /// Whose the symbolic links are that stand for whiteouts: there is no overlayfs to mount them.
    const NOBODY: u32 = u32::MAX - 1;

    /// Always an error.
    pub fn mknod(_: impl AsFd, _: &[u8], _: FileType, _: Mode, _: Dev) -> Result<()> {
        Err(Errno::NOTSUP)
    }

    /// Hides a name.
    pub fn make_whiteout(fd: impl AsFd, name: &[u8]) -> Result<()> {
        let fd = fd.as_fd();
        rustix::fs::symlinkat("whiteout", fd, name)?;
        let owner = Some(Uid::from_raw(NOBODY));
        rustix::fs::chownat(fd, name, owner, None, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Whether the name is gone.
    pub fn is_whiteout(stat: &Stat) -> bool {
        file_type(stat) == FileType::Symlink && stat.st_uid == NOBODY
    }

    /// Whether an entry of that kind and owner would be mistaken for a whiteout.
    pub fn forges_whiteout(kind: &Kind, uid: u32) -> bool {
        matches!(kind, Kind::Symlink(_)) && uid == NOBODY
    }

    /// Lists here are other than these.
    pub fn clear_acls(_: &OwnedFd) -> Result<()> {
        Ok(())
    }

    /// Opens a directory beneath `root`. `ELOOP` or `ENOTDIR` if a symbolic link is on the way.
    pub fn open_beneath(root: &OwnedFd, parts: &[&[u8]]) -> Result<OwnedFd> {
        parts.iter().try_fold(open_dir(root, b".")?, |at, part| open_dir(&at, part))
    }

    /// None: nothing sets them.
    pub fn xattrs_at(_: impl AsFd, _: &[u8]) -> Result<Xattrs> {
        Ok(Vec::new())
    }

    /// An error, but for none.
    pub fn set_xattrs_at(_: impl AsFd, _: &[u8], xattrs: &Xattrs) -> Result<()> {
        if xattrs.is_empty() { Ok(()) } else { Err(Errno::OPNOTSUPP) }
    }
}
