//! A layer of the root. A shared lock on the directory keeps jc-rmi from its removal until mountinfo lists the
//! layer (jc-store(5)).

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use jc_unshare::descriptor::is_same;
use jc_unshare::{Context, Error, Result};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, open, stat};
use rustix::io::Errno;

/// A directory in the format of overlayfs, with a shared lock.
pub struct Layer {
    /// The directory, opened for reading.
    pub fd: OwnedFd,
    path: PathBuf,
    /// Whether the path leads to the directory. Otherwise the directory has no path, and is passed by its descriptor.
    is_named: bool,
}

impl Layer {
    /// Opens and locks a directory. A removal in progress is an error.
    pub fn open(path: &Path) -> Result<Self> {
        // flock(2) takes no O_PATH descriptor, and overlayfs takes none before Linux 6.15.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = open(path, flags, Mode::empty()).on("open", path).map_err(|error| {
            if error.errno() == Some(Errno::NOENT.raw_os_error()) {
                error.hint("jc-pull IMAGE fetches a layer again that jc-rmi has removed")
            } else {
                error
            }
        })?;
        match flock(&fd, FlockOperation::NonBlockingLockShared) {
            // jc-rmi removes nothing from a file system without locks.
            Ok(()) | Err(Errno::NOLCK | Errno::OPNOTSUPP) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(Error::new(format_args!("layer {}: is being removed", path.display())));
            }
            Err(errno) => return Err(errno).on("flock", path),
        }
        Ok(Self { fd, path: path.to_owned(), is_named: true })
    }

    /// The directory of a mount that no path leads to. `path` is for errors.
    pub fn unnamed(fd: OwnedFd, path: &Path) -> Self {
        Self { fd, path: path.to_owned(), is_named: false }
    }

    /// The absolute path without symbolic links.
    pub fn real_path(&self) -> Result<PathBuf> {
        let by_fd = path_of_fd(&self.fd);
        std::fs::read_link(&by_fd).on("readlink", &by_fd)
    }

    /// Opens and locks directories, in the same order.
    pub fn open_all(paths: &[PathBuf]) -> Result<Vec<Self>> {
        paths.iter().map(|path| Self::open(path)).collect()
    }

    /// The path of the directory without symbolic links, for the options of overlayfs and so for mountinfo. A path
    /// that fsconfig(2) does not take, and a directory that is unlinked, have a [`path_of_fd`] instead.
    pub fn option(&self) -> Result<String> {
        /// The longest value of an option of fsconfig(2), in bytes.
        const MAX: usize = 255;
        let by_fd = path_of_fd(&self.fd);
        let path = self.real_path()?;
        Ok(match path.into_os_string().into_string() {
            Ok(path) if self.is_named && path.len() <= MAX && !path.ends_with(" (deleted)") => path,
            _ => by_fd,
        })
    }

    /// Requires that the path still leads to the directory. Callers check this after the mount: a rename and a
    /// removal can happen between the opening and the lock.
    pub fn require_path(&self) -> Result<()> {
        if !self.is_named {
            return Ok(());
        }
        let locked = fstat(&self.fd).on("stat", &self.path)?;
        match stat(&self.path) {
            Ok(found) if is_same(&found, &locked) => Ok(()),
            _ => {
                let path = self.path.display();
                Err(Error::new(format_args!("layer {path}: was removed meanwhile")))
            }
        }
    }
}

/// The path of an open file through its descriptor.
pub fn path_of_fd(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_layer_is_locked_while_it_is_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("layer");
        fs::create_dir(&path).unwrap();
        let layer = Layer::open(&path).unwrap();
        assert_eq!(layer.option().unwrap(), fs::canonicalize(&path).unwrap().to_str().unwrap());
        let remover: OwnedFd = fs::File::open(&path).unwrap().into();
        let lock = || flock(&remover, FlockOperation::NonBlockingLockExclusive);
        assert_eq!(lock(), Err(Errno::WOULDBLOCK));
        drop(layer);
        lock().unwrap();
        let error = Layer::open(&path).err().unwrap().to_string();
        assert_eq!(error, format!("layer {}: is being removed", path.display()));
    }

    #[test]
    fn a_path_that_leads_to_another_directory_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("layer");
        fs::create_dir(&path).unwrap();
        let layer = Layer::open(&path).unwrap();
        layer.require_path().unwrap();
        fs::rename(&path, dir.path().join("away")).unwrap();
        for replace in [false, true] {
            if replace {
                fs::create_dir(&path).unwrap();
            }
            let error = layer.require_path().unwrap_err().to_string();
            assert_eq!(error, format!("layer {}: was removed meanwhile", path.display()));
        }
        fs::remove_dir(dir.path().join("away")).unwrap();
        assert_eq!(layer.option().unwrap(), path_of_fd(&layer.fd));
    }

    #[test]
    fn a_path_that_is_too_long_goes_through_the_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x".repeat(200)).join("y".repeat(200));
        fs::create_dir_all(&path).unwrap();
        let layer = Layer::open(&path).unwrap();
        assert_eq!(layer.option().unwrap(), path_of_fd(&layer.fd));
    }
}
