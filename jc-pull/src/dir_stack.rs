//! The current directory in a tree, whose depth is limited by memory and not by RLIMIT_NOFILE.

use std::os::fd::OwnedFd;

use rustix::io::{Errno, Result};

use crate::sys;

/// The directories above the current one whose descriptors stay open. A tree of ordinary depth needs no
/// `..`.
const WINDOW: usize = 16;

/// The current directory, and the directories between the root and it.
pub struct DirStack {
    current: OwnedFd,
    /// The directories above the current one, the root first.
    above: Vec<Above>,
}

enum Above {
    Open(OwnedFd),
    /// Device and inode of a directory that is opened again by `..`.
    Closed(u64, u64),
}

impl DirStack {
    pub fn new(root: OwnedFd) -> Self {
        Self { current: root, above: Vec::new() }
    }

    pub fn fd(&self) -> &OwnedFd {
        &self.current
    }

    pub fn root(&self) -> &OwnedFd {
        match self.above.first() {
            Some(Above::Open(root)) => root,
            _ => &self.current,
        }
    }

    /// Enters a child of the current directory.
    pub fn push(&mut self, child: OwnedFd) -> Result<()> {
        self.above.push(Above::Open(std::mem::replace(&mut self.current, child)));
        let outside = self.above.len().saturating_sub(WINDOW);
        match self.above.get_mut(outside) {
            Some(above) if outside > 0 => above.close(),
            _ => Ok(()),
        }
    }

    /// Enters the parent of the current directory. At the root nothing happens. `ESTALE` if another
    /// process has moved the current directory.
    pub fn pop(&mut self) -> Result<()> {
        self.current = match self.above.pop() {
            Some(Above::Open(fd)) => fd,
            Some(Above::Closed(device, inode)) => {
                let fd = sys::open_dir_to_read(&self.current, "..")?;
                if sys::identity(&rustix::fs::fstat(&fd)?) != (device, inode) {
                    return Err(Errno::STALE);
                }
                fd
            }
            None => return Ok(()),
        };
        Ok(())
    }
}

impl Above {
    fn close(&mut self) -> Result<()> {
        if let Self::Open(fd) = self {
            let (device, inode) = sys::identity(&rustix::fs::fstat(&*fd)?);
            *self = Self::Closed(device, inode);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    #[test]
    fn a_directory_that_is_moved_away_leads_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let deep = "d/".repeat(WINDOW * 2);
        fs::create_dir_all(dir.path().join(&deep)).unwrap();
        let mut stack = DirStack::new(File::open(dir.path()).unwrap().into());
        for _ in 0..WINDOW * 2 {
            stack.push(sys::open_dir_to_read(stack.fd(), "d").unwrap()).unwrap();
        }
        for _ in 0..WINDOW + 2 {
            stack.pop().unwrap();
        }
        // The parent of the current directory is outside the window, and another directory has its name.
        let current = "d/".repeat(WINDOW - 2);
        fs::rename(dir.path().join(current), dir.path().join("moved")).unwrap();
        assert_eq!(stack.pop().unwrap_err(), Errno::STALE);
    }
}
