//! Files and directories that appear complete, by rename.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use jc_unshare::{Context, Error, Result, remove_tree, temporary};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::sys;

/// A file or directory that is written under another name in the directory of its path. The entry
/// is removed with this value, unless [`AtomicPath::publish`] has renamed it.
pub struct AtomicPath {
    parent: OwnedFd,
    name: String,
    path: PathBuf,
    /// The file or directory to write.
    pub fd: OwnedFd,
}

impl AtomicPath {
    /// Makes a directory that becomes `path`. Entries that earlier processes left are removed. A path
    /// without a name is an error.
    pub fn directory(path: &Path) -> Result<Self> {
        Self::new(path, temporary::create_dir)
    }

    /// Makes a file that becomes `path`. Entries that earlier processes left are removed. A path without
    /// a name is an error.
    pub fn file(path: &Path) -> Result<Self> {
        Self::new(path, temporary::create_file)
    }

    fn new(
        path: &Path,
        create: impl Fn(&OwnedFd, &str) -> rustix::io::Result<(String, OwnedFd)>,
    ) -> Result<Self> {
        let name = path.file_name();
        let name = name.ok_or_else(|| Error::new(format_args!("{}: no name", path.display())))?;
        let above = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let parent = rustix::fs::openat(CWD, above, flags, Mode::empty()).on("open", above)?;
        let prefix = format!(".{}.jc-", name.to_string_lossy());
        sweep(&parent, prefix.as_bytes()).on("sweep", above)?;
        let (name, fd) = create(&parent, &prefix).on("create", above.join(&prefix))?;
        Ok(Self { parent, name, path: path.to_owned(), fd })
    }

    /// Renames the entry to its path, in place of a file or of an empty directory. A directory that is
    /// not empty is an error.
    pub fn publish(&self) -> Result<()> {
        let name = self.path.file_name().unwrap_or_default();
        rustix::fs::renameat(&self.parent, &self.name, &self.parent, name).on("rename", &self.path)
    }
}

impl Drop for AtomicPath {
    fn drop(&mut self) {
        // After a rename the name is absent. The next process removes an entry that stays here.
        let _: rustix::io::Result<()> = remove_tree(&self.parent, self.name.as_bytes());
    }
}

/// Removes the entries of dead processes. Entries of other users stay, for root as well: their owner could
/// fill them for as long as the removal lasts.
pub fn sweep(parent: &OwnedFd, prefix: &[u8]) -> rustix::io::Result<()> {
    let mut found = Vec::new();
    sys::for_each_name(parent, |name| {
        if name.starts_with(prefix) {
            found.push(name.to_vec());
        }
        Ok(())
    })?;
    let is_own = |name: &Vec<u8>| {
        let stat = rustix::fs::statat(parent, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW);
        stat.is_ok_and(|stat| stat.st_uid == rustix::process::geteuid().as_raw())
    };
    found.iter().filter(|name| is_own(name)).try_for_each(|name| {
        match temporary::remove_unlocked(parent, name) {
            Err(Errno::ACCESS | Errno::PERM | Errno::LOOP | Errno::NXIO) => Ok(()),
            other => other,
        }
    })
}
