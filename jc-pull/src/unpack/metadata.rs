//! Owners, modes, times and attributes of entries.

use std::os::fd::AsFd;

use jc_unshare::Result;
use rustix::fs::{AtFlags, Gid, Mode, Uid, XattrFlags};

use super::state::State;
use crate::sys;
use crate::tar::{Entry, EntryKind, acl};

impl State {
    /// Sets the metadata of the current directory. `reset`: the directory may have another owner and mode
    /// than mkdir(2) gives.
    pub fn set_directory_metadata(
        &mut self,
        name: &[u8],
        entry: &Entry,
        reset: bool,
    ) -> Result<()> {
        let fd = self.tree.fd();
        let fault = |operation: &str, e| self.tree.fault(operation, name, e);
        if reset || (entry.uid, entry.gid) != self.owner {
            chown(fd, entry).map_err(|e| fault("chown", e))?;
        }
        if reset || entry.mode & 0o6000 != 0 {
            let mode = Mode::from_raw_mode(entry.mode);
            rustix::fs::fchmod(fd, mode).map_err(|e| fault("chmod", e))?;
        }
        if reset {
            clear_xattrs(fd).map_err(|e| fault("removexattr", e))?;
        }
        let (last, now): (Vec<_>, Vec<_>) =
            entry.xattrs.iter().partition(|(key, _)| key == acl::DEFAULT);
        set_xattrs(fd, now).map_err(|e| fault("setxattr", e))?;
        let default_acl = last.into_iter().next().map(|(_, value)| value.clone());
        self.tree.set_listed(entry.mtime, entry.mode & 0o2000 != 0, default_acl);
        Ok(())
    }

    /// Sets owner, attributes and time of a file that cannot be opened.
    pub fn set_metadata(&mut self, name: &[u8], entry: &Entry) -> Result<()> {
        let fd = self.tree.fd();
        let fault = |operation: &str, e| self.tree.fault(operation, name, e);
        if self.needs_chown(entry) {
            let (uid, gid) = owner(entry);
            rustix::fs::chownat(fd, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| fault("chown", e))?;
            if entry.mode & 0o6000 != 0 && !matches!(entry.kind, EntryKind::Symlink(_)) {
                let mode = Mode::from_raw_mode(entry.mode);
                rustix::fs::chmodat(fd, name, mode, AtFlags::empty())
                    .map_err(|e| fault("chmod", e))?;
            }
        }
        if !entry.xattrs.is_empty() {
            sys::set_xattrs_at(fd, name, &entry.xattrs).map_err(|e| fault("setxattr", e))?;
        }
        let times = sys::timestamps(entry.mtime);
        rustix::fs::utimensat(fd, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| fault("utimens", e))
    }
}

fn owner(entry: &Entry) -> (Uid, Gid) {
    (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid))
}

pub fn chown(fd: impl AsFd, entry: &Entry) -> rustix::io::Result<()> {
    let (uid, gid) = owner(entry);
    rustix::fs::fchown(fd, Some(uid), Some(gid))
}

pub fn set_xattrs<'a>(
    fd: impl AsFd,
    xattrs: impl IntoIterator<Item = &'a (Vec<u8>, Vec<u8>)>,
) -> rustix::io::Result<()> {
    xattrs.into_iter().try_for_each(|(key, value)| {
        rustix::fs::fsetxattr(fd.as_fd(), key.as_slice(), value, XattrFlags::empty())
    })
}

/// Removes the attributes of an earlier entry, but not the attributes of overlayfs.
fn clear_xattrs(fd: impl AsFd) -> rustix::io::Result<()> {
    for key in sys::xattr_names(fd.as_fd())? {
        if !sys::is_overlay_xattr(&key) {
            rustix::fs::fremovexattr(fd.as_fd(), key.as_slice())?;
        }
    }
    Ok(())
}
