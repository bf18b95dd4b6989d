//! Locks on files (flock(2)) with a bound for the wait, since every user who can read a file can lock it.

use std::os::fd::AsFd;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};

/// The longest wait for a lock.
const PATIENCE: Duration = Duration::from_secs(20);

/// Takes a shared lock on an open file. `path` is for the error.
pub fn share(file: impl AsFd, path: impl AsRef<Path>) -> Result<()> {
    wait(file, FlockOperation::NonBlockingLockShared, path.as_ref())
}

/// Takes an exclusive lock on an open file. `path` is for the error.
pub fn exclude(file: impl AsFd, path: impl AsRef<Path>) -> Result<()> {
    wait(file, FlockOperation::NonBlockingLockExclusive, path.as_ref())
}

/// Takes an exclusive lock on an open file without a wait. `false` if another process has a lock.
pub fn try_exclude(file: impl AsFd) -> rustix::io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(e),
    }
}

fn wait(file: impl AsFd, operation: FlockOperation, path: &Path) -> Result<()> {
    let start = Instant::now();
    loop {
        match flock(&file, operation) {
            Err(Errno::WOULDBLOCK) if start.elapsed() < PATIENCE => {
                sleep(Duration::from_micros(500));
            }
            Err(Errno::WOULDBLOCK) => {
                let (path, seconds) = (path.display(), PATIENCE.as_secs());
                let message =
                    format_args!("flock {path}: held by another process for {seconds} seconds");
                return Err(Error::new(message).hint("lslocks(8) names the process"));
            }
            Err(Errno::INTR) => {}
            locked => return locked.on("flock", path),
        }
    }
}
