//! A file that appears whole: written beside its name, and renamed.

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    Access, AtFlags, CWD, FileType, Mode, OFlags, accessat, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;

use super::id;
use crate::error::{Context, Error, Result};

/// A name in a directory that is open.
#[derive(Debug)]
pub struct NamedFile {
    directory: OwnedFd,
    name: OsString,
}

impl NamedFile {
    /// The name of a path, with its directory. `option` is the option of the path, for messages.
    pub fn find(path: &Path, option: &str) -> Result<Self> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, parent.unwrap_or(Path::new(".")), flags, Mode::empty());
        let name = path.file_name().filter(|_| !path.as_os_str().as_bytes().ends_with(b"/"));
        let name = name.ok_or_else(|| is_directory(path.display(), option))?.to_owned();
        Ok(Self { directory: directory.on(option, path)?, name })
    }

    /// A name that is free, or that of a regular file, in a directory in which this process may write.
    pub fn for_replacement(path: &Path, option: &str) -> Result<Self> {
        let file = Self::find(path, option)?;
        match statat(&file.directory, &file.name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {}
            found => {
                let mode = found.on(option, path)?.st_mode;
                if FileType::from_raw_mode(mode) != FileType::RegularFile {
                    let path = path.display();
                    return Err(Error::new(format_args!("{option} {path}: not a regular file")));
                }
            }
        }
        file.may_write().on(option, path)?;
        Ok(file)
    }

    /// The last component of the path.
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Checks that this process may make files in the directory.
    pub fn may_write(&self) -> rustix::io::Result<()> {
        accessat(&self.directory, ".", Access::WRITE_OK, AtFlags::empty())
    }

    /// Writes a temporary file and renames it, since others may read the file.
    pub fn replace(&self, bytes: &[u8]) -> Result<()> {
        let temporary = format!(".jc-{}", id::random()?);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o666);
        let path = Path::new(&self.name);
        let file = openat(&self.directory, &temporary, flags, mode).on("write", path)?;
        let mut file = File::from(file);
        let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| {
            renameat(&self.directory, &temporary, &self.directory, &self.name)?;
            Ok(())
        });
        if written.is_err() {
            // The first error is the one to report.
            let _: rustix::io::Result<()> = unlinkat(&self.directory, &temporary, AtFlags::empty());
        }
        written.on("write", path)
    }
}

impl AsFd for NamedFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// The error for a directory in place of a file.
pub fn is_directory(path: impl Display, option: &str) -> Error {
    Error::new(format_args!("{option} {path}: Is a directory"))
}
