//! The files of one state directory. All lookups start at its descriptor.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use jc_unshare::descriptor::open_dir_to_read;
use jc_unshare::{Context, Error, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, openat, renameat, unlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;
use serde::de::DeserializeOwned;

use super::base_path::hinted;

/// The most bytes of a file.
const MOST: u64 = 16 << 20;

/// An open state directory.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    directory: OwnedFd,
}

impl StateDir {
    /// Opens a directory of the caller. `None`: the directory is absent.
    pub fn open(parent: impl AsFd, name: &Path, path: &Path) -> Result<Option<Self>> {
        let directory = match open_dir_to_read(parent, name) {
            Err(Errno::NOENT) => return Ok(None),
            other => other.on("open", path)?,
        };
        if fstat(&directory).on("stat", path)?.st_uid != geteuid().as_raw() {
            let message =
                format_args!("state directory {}: belongs to another user", path.display());
            return Err(hinted(Error::new(message)));
        }
        Ok(Some(Self { path: path.to_owned(), directory }))
    }

    /// The path, for messages and for other programs.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a regular file for reading. `None`: the file is absent. A symbolic link, which leads elsewhere, and a FIFO,
    /// whose open waits for a writer, are errors.
    pub fn file(&self, name: &str) -> Result<Option<File>> {
        let path = self.path.join(name);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.directory, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            other => other.on("open", &path)?,
        };
        let stat = fstat(&file).on("stat", &path)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::new(format_args!("read {}: not a regular file", path.display())));
        }
        Ok(Some(file.into()))
    }

    /// Reads a regular file of bounded size. `None`: the file is absent.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.file(name)? else { return Ok(None) };
        let (path, mut bytes) = (self.path.join(name), Vec::new());
        file.take(MOST + 1).read_to_end(&mut bytes).on("read", &path)?;
        if bytes.len() as u64 > MOST {
            let message = format_args!("read {}: more than {MOST} bytes", path.display());
            return Err(Error::new(message));
        }
        Ok(Some(bytes))
    }

    /// Reads a value in JSON. `None`: the file is absent.
    pub fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let Some(bytes) = self.read(name)? else { return Ok(None) };
        let value = serde_json::from_slice(&bytes);
        value
            .map(Some)
            .map_err(|e| Error::new(format_args!("read {}: {e}", self.path.join(name).display())))
    }

    /// Replaces a file by rename, so that no reader sees a part of it.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let new = format!("{name}.new");
        self.write(&new, bytes).inspect_err(|_| {
            // The error of the write is the one to report.
            let _: rustix::io::Result<()> = unlinkat(&self.directory, &new, AtFlags::empty());
        })?;
        let directory = &self.directory;
        renameat(directory, &new, directory, name).on("rename", self.path.join(name))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path.join(name);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.directory, name, flags, Mode::RUSR | Mode::WUSR);
        let mut file = File::from(file.on("create", &path)?);
        file.write_all(bytes).on("write", &path)?;
        file.sync_data().on("fsync", &path)
    }
}

impl AsFd for StateDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl From<StateDir> for OwnedFd {
    fn from(directory: StateDir) -> Self {
        directory.directory
    }
}
