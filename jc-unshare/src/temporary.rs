//! Files and directories under random names, locked by the process that writes them. The kernel unlocks
//! the entries of a process that dies, and the next process removes them.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};

use crate::descriptor::open_dir_to_read;
use crate::lock::try_exclude;
use crate::remove_tree;

/// A random number for names and jitter, on every platform. Another process may guess the number.
pub fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Makes a directory with mode 0700, and locks it.
pub fn create_dir(parent: &OwnedFd, prefix: &str) -> Result<(String, OwnedFd)> {
    create(prefix, |name| {
        rustix::fs::mkdirat(parent, name, Mode::RWXU)?;
        match open_dir_to_read(parent, name) {
            // Another process removed the directory before its lock, as that of a dead process.
            Err(Errno::NOENT) => Err(Errno::EXIST),
            other => other,
        }
    })
}

/// Makes a file with mode 0644, opens it for writing, and locks it.
pub fn create_file(parent: &OwnedFd, prefix: &str) -> Result<(String, OwnedFd)> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o644);
    create(prefix, |name| rustix::fs::openat(parent, name, flags, mode))
}

fn create(prefix: &str, make: impl Fn(&str) -> Result<OwnedFd>) -> Result<(String, OwnedFd)> {
    loop {
        let name = format!("{prefix}{:016x}", random());
        let fd = match make(&name) {
            Err(Errno::EXIST) => continue,
            made => made?,
        };
        // Another process may have removed the entry before its lock, as that of a dead process.
        if try_exclude(&fd)? && rustix::fs::fstat(&fd)?.st_nlink > 0 {
            return Ok((name, fd));
        }
    }
}

/// Removes a file or a directory with its content, unless a process has it locked. `ELOOP` for a symbolic
/// link, `ENXIO` for a socket.
pub fn remove_unlocked(parent: &OwnedFd, name: &[u8]) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    // Another process may have removed the entry before this lock, and the name may be a new one's.
    if try_exclude(&fd)? && rustix::fs::fstat(&fd)?.st_nlink > 0 {
        return remove_tree(parent, name);
    }
    Ok(())
}
