//! A root in a mount namespace that the container shares: its mounts outlive the program, and `delete` undoes them.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;

use jc_unshare::sys::{clone, setns, unshare};
use jc_unshare::{Absent, Context, Error, Result};
use nix::libc::CLONE_FS;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, fstat, open, statx};
use rustix::mount::{UnmountFlags, unmount};
use serde::{Deserialize, Serialize};

use super::config::Config;

/// A root before the chain mounts a copy of it over itself.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SharedRoot {
    root: PathBuf,
    /// The file of the mount namespace. `None`: the namespace of the runtime.
    path: Option<PathBuf>,
    /// The inode of that file, which another namespace may have later.
    namespace: u64,
    /// The ID of the mount that has the root.
    mount: u64,
}

impl SharedRoot {
    /// The root of a configuration without a new mount namespace.
    pub fn of(config: &Config, bundle: &Path) -> Result<Option<Self>> {
        let linux = config.linux();
        let found = linux.namespaces.iter().find(|namespace| namespace.kind == "mount");
        let path = found.and_then(|namespace| namespace.path().cloned());
        if found.is_some() && path.is_none() {
            return Ok(None);
        }
        let root = bundle.join(&config.root()?.path);
        let file = open_namespace(path.as_deref())?;
        let namespace = inode(&file)?;
        let (root, mount) = inside(path.is_some().then_some(&file), || {
            // A later link in place of the root leads nowhere.
            let root = root.canonicalize().on("find", &root)?;
            let mount = mount_id(&root)?;
            Ok((root, mount))
        })?;
        Ok(Some(Self { root, path, namespace, mount }))
    }

    /// Unmounts the copy with all that is mounted below, if the chain has come that far.
    pub fn undo(&self) -> Result<()> {
        let Some(file) = open_namespace(self.path.as_deref()).absent()? else { return Ok(()) };
        if inode(&file)? != self.namespace {
            return Ok(());
        }
        inside(self.path.is_some().then_some(&file), || match mount_id(&self.root).absent()? {
            Some(mount) if mount != self.mount => {
                unmount(&self.root, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
                    .on("unmount", &self.root)
            }
            _ => Ok(()),
        })
    }
}

fn open_namespace(path: Option<&Path>) -> Result<OwnedFd> {
    let path = path.unwrap_or(Path::new("/proc/self/ns/mnt"));
    // O_NONBLOCK: the open of a FIFO would wait.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).on("open", path)
}

fn inode(file: &OwnedFd) -> Result<u64> {
    Ok(fstat(file).op("fstat")?.st_ino)
}

fn mount_id(path: &Path) -> Result<u64> {
    let stat = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::MNT_ID).on("stat", path)?;
    Ok(stat.stx_mnt_id)
}

/// Calls a function in a mount namespace, on a thread with a root and a directory of its own.
fn inside<T: Send>(
    namespace: Option<&OwnedFd>,
    act: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    let Some(namespace) = namespace else { return act() };
    let enter = || {
        unshare(CLONE_FS as u64).op("unshare")?;
        setns(namespace.as_fd(), clone::NEWNS).op("setns")?;
        act()
    };
    let ended = thread::scope(|scope| scope.spawn(enter).join());
    ended.unwrap_or_else(|_| Err(Error::new("a thread has ended early")))
}
