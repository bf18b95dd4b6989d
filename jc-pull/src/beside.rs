//! What is written beside the place where it is to appear, complete.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use jc_unshare::{Context, Error, Result, remove_tree};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::sys;

/// A directory or file under a name of its own, locked while this lives, and removed with it.
pub struct Beside {
    parent: OwnedFd,
    work: String,
    path: PathBuf,
    /// The directory, or the file, to write.
    pub fd: OwnedFd,
}

impl Beside {
    /// Begins a directory that is to be `path`.
    pub fn directory(path: &Path) -> Result<Self> {
        Self::new(path, |parent, work| {
            rustix::fs::mkdirat(parent, work, Mode::RWXU)?;
            sys::open_dir(parent, work.as_bytes())
        })
    }

    /// Begins a file that is to be `path`.
    pub fn file(path: &Path) -> Result<Self> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o644);
        Self::new(path, |parent, work| rustix::fs::openat(parent, work, flags, mode))
    }

    fn new(
        path: &Path,
        make: impl Fn(&OwnedFd, &str) -> rustix::io::Result<OwnedFd>,
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
        loop {
            let work = format!("{prefix}{:016x}", sys::random());
            let fd = make(&parent, &work).on("create", above.join(&work))?;
            // Until it is locked, another may take it for a dead one's.
            match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => continue,
                locked => locked.on("flock", above.join(&work))?,
            }
            if rustix::fs::fstat(&fd).on("stat", above.join(&work))?.st_nlink > 0 {
                return Ok(Self { parent, work, path: path.to_owned(), fd });
            }
        }
    }

    /// Lets it appear: in place of a file, or of an empty directory.
    pub fn finish(self) -> Result<()> {
        let name = self.path.file_name().unwrap_or_default();
        rustix::fs::renameat(&self.parent, &self.work, &self.parent, name).on("rename", &self.path)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // Nothing is there any more if all went well; what else may go wrong, the next one sweeps.
        let _: rustix::io::Result<()> = remove_tree(&self.parent, self.work.as_bytes());
    }
}

/// Removes what the dead left: nobody holds its lock.
fn sweep(parent: &OwnedFd, prefix: &[u8]) -> rustix::io::Result<()> {
    let mut found = Vec::new();
    sys::for_each_name(parent, |name| {
        if name.starts_with(prefix) {
            found.push(name.to_vec());
        }
        Ok(())
    })?;
    for name in found {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rustix::fs::openat(parent, name.as_slice(), flags, Mode::empty()) {
            Ok(fd) if rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive).is_ok() => {
                remove_tree(parent, &name)?;
            }
            // Somebody else's, alive or gone.
            _ => {}
        }
    }
    Ok(())
}
