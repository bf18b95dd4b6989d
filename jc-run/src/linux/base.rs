//! The open directory of all state directories.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use jc_unshare::private_dir::WRITABLE;
use jc_unshare::{Context, Error, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, Mode, fchmod, fstat, mkdirat, readlinkat, unlinkat};
use rustix::io::Errno;

use super::base_path::{BasePath, hinted, open_chain};
use super::files::StateDir;

/// The directory of all state directories. All lookups in it start at its descriptor.
#[derive(Debug)]
pub struct Base {
    path: PathBuf,
    parent: OwnedFd,
    name: OsString,
    directory: OwnedFd,
    /// Whether the directory is removed with the last container: it is the default, or this process has made it.
    is_temporary: bool,
}

impl Base {
    /// Opens the directory. `None`: the directory is absent. A directory that another user owns or can write to is an
    /// error.
    pub fn open(base_path: &BasePath) -> Result<Option<Self>> {
        let Some(parent) = open_chain(above(&base_path.path), false)? else { return Ok(None) };
        let Some(base) = Self::beneath(parent, base_path, base_path.is_default)? else {
            return Ok(None);
        };
        if base.mode()? & WRITABLE != 0 {
            let message = format!("{}: is writable by other users", base.path.display());
            return Err(hinted(Error::new(format_args!("state directory {message}"))));
        }
        Ok(Some(base))
    }

    /// Opens the directory, makes it if it is absent, and clears the permissions of other users.
    pub fn create(base_path: &BasePath) -> Result<Self> {
        let path = &base_path.path;
        loop {
            let Some(parent) = open_chain(above(path), true)? else { continue };
            let is_new = match mkdirat(&parent, &name_of(path)?, Mode::RWXU) {
                Err(Errno::EXIST) => false,
                made => made.on("mkdir", path).map(|()| true).map_err(hinted)?,
            };
            // Another jc-run may have removed the directory with its last container.
            let is_temporary = is_new || base_path.is_default;
            let Some(base) = Self::beneath(parent, base_path, is_temporary)? else { continue };
            if base.mode()? & 0o077 != 0 {
                fchmod(&base.directory, Mode::RWXU).on("chmod", path)?;
            }
            return Ok(base);
        }
    }

    fn beneath(parent: OwnedFd, base_path: &BasePath, is_temporary: bool) -> Result<Option<Self>> {
        let (path, name) = (base_path.path.clone(), name_of(&base_path.path)?);
        let Some(directory) = StateDir::open(&parent, Path::new(&name), &path)? else {
            return Ok(None);
        };
        let directory = OwnedFd::from(directory);
        Ok(Some(Self { path, parent, name, directory, is_temporary }))
    }

    fn mode(&self) -> Result<u32> {
        fstat(&self.directory).on("stat", &self.path).map(|stat| stat.st_mode)
    }

    /// The path, for messages and for other programs.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name of each entry, and whether the entry is a symbolic link.
    pub fn entries(&self) -> Result<Vec<(OsString, bool)>> {
        let mut entries = Vec::new();
        for entry in Dir::read_from(&self.directory).on("read", &self.path)? {
            let entry = entry.on("read", &self.path)?;
            let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
            let is_link = match entry.file_type() {
                // Some file systems have no types in their directories.
                FileType::Unknown => self.link(&name)?.is_some(),
                kind => kind == FileType::Symlink,
            };
            entries.push((name, is_link));
        }
        Ok(entries)
    }

    /// The text of a symbolic link. `None`: no link has the name.
    pub fn link(&self, name: impl AsRef<Path>) -> Result<Option<String>> {
        match readlinkat(&self.directory, name.as_ref(), Vec::new()) {
            Err(Errno::NOENT | Errno::INVAL) => Ok(None),
            other => {
                let text = other.on("readlink", self.path.join(name))?;
                Ok(Some(text.to_string_lossy().into_owned()))
            }
        }
    }

    /// Removes the directory if it is temporary and empty.
    pub fn remove_if_empty(&self) {
        if self.is_temporary {
            // Another container has a state directory here, or another process has removed the directory.
            let _: rustix::io::Result<()> = unlinkat(&self.parent, &self.name, AtFlags::REMOVEDIR);
        }
    }
}

impl AsFd for Base {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

fn above(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

fn name_of(path: &Path) -> Result<OsString> {
    let none = || Error::new(format_args!("state directory {}: has no name", path.display()));
    path.file_name().map(|name| name.to_owned()).ok_or_else(none)
}
