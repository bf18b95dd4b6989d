//! A layer of the root, held so that nobody removes it before the kernel knows who has it mounted
//! (jc-store(5)).

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use jc_unshare::{Context, Error, Result};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, open, stat};
use rustix::io::Errno;

/// A directory in overlayfs format, with a shared lock on it.
pub struct Layer {
    /// The directory.
    pub fd: OwnedFd,
    path: PathBuf,
}

impl Layer {
    /// Opens and locks it.
    pub fn open(path: &Path) -> Result<Self> {
        // Neither the lock nor, before Linux 6.15, overlayfs takes an O_PATH descriptor.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = open(path, flags, Mode::empty()).on("open", path)?;
        match flock(&fd, FlockOperation::NonBlockingLockShared) {
            // Where there are no locks nobody holds one, and jc-rmi removes nothing.
            Ok(()) | Err(Errno::NOLCK | Errno::OPNOTSUPP) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(Error::new(format_args!("layer {}: is being removed", path.display())));
            }
            Err(errno) => return Err(errno).on("flock", path),
        }
        Ok(Self { fd, path: path.to_owned() })
    }

    /// The layers of these directories, in the same order.
    pub fn open_all(paths: &[PathBuf]) -> Result<Vec<Self>> {
        paths.iter().map(|path| Self::open(path)).collect()
    }

    /// Its path without links, which mountinfo is to show; or one by the descriptor, where the
    /// kernel does not take the name: it is longer than fsconfig(2) allows, or the directory has none.
    pub fn name(&self) -> Result<String> {
        /// The longest string of fsconfig(2), in bytes.
        const MAX: usize = 255;
        let by_fd = by_fd(&self.fd);
        let path = std::fs::read_link(&by_fd).on("readlink", &by_fd)?;
        Ok(match path.into_os_string().into_string() {
            Ok(name) if name.len() <= MAX && !name.ends_with(" (deleted)") => name,
            _ => by_fd,
        })
    }

    /// Makes sure that the directory still has its name. To be asked once it is mounted: before that,
    /// it could have been renamed away and removed between its opening and its lock.
    pub fn require_name(&self) -> Result<()> {
        let held = fstat(&self.fd).on("stat", &self.path)?;
        match stat(&self.path) {
            Ok(named) if (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino) => Ok(()),
            _ => {
                let path = self.path.display();
                Err(Error::new(format_args!("layer {path}: was removed meanwhile")))
            }
        }
    }
}

/// The path of what a descriptor holds, by its number.
pub fn by_fd(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_layer_is_held_while_it_is_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("layer");
        fs::create_dir(&path).unwrap();
        let layer = Layer::open(&path).unwrap();
        assert_eq!(layer.name().unwrap(), fs::canonicalize(&path).unwrap().to_str().unwrap());
        let remover: OwnedFd = fs::File::open(&path).unwrap().into();
        let take = || flock(&remover, FlockOperation::NonBlockingLockExclusive);
        assert_eq!(take(), Err(Errno::WOULDBLOCK));
        drop(layer);
        take().unwrap();
        let error = Layer::open(&path).err().unwrap().to_string();
        assert_eq!(error, format!("layer {}: is being removed", path.display()));
    }

    #[test]
    fn a_layer_that_has_lost_its_name_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("layer");
        fs::create_dir(&path).unwrap();
        let layer = Layer::open(&path).unwrap();
        layer.require_name().unwrap();
        fs::rename(&path, dir.path().join("away")).unwrap();
        for replace in [false, true] {
            if replace {
                fs::create_dir(&path).unwrap();
            }
            let error = layer.require_name().unwrap_err().to_string();
            assert_eq!(error, format!("layer {}: was removed meanwhile", path.display()));
        }
        fs::remove_dir(dir.path().join("away")).unwrap();
        assert_eq!(layer.name().unwrap(), by_fd(&layer.fd));
    }

    #[test]
    fn a_name_that_is_too_long_goes_by_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x".repeat(200)).join("y".repeat(200));
        fs::create_dir_all(&path).unwrap();
        let layer = Layer::open(&path).unwrap();
        assert_eq!(layer.name().unwrap(), by_fd(&layer.fd));
    }
}
