//! One lock for each network namespace, on the namespace itself: it needs no file, means the same to
//! every process in that namespace, and ends with whoever holds it.

use std::fs::File;
use std::thread::sleep;
use std::time::{Duration, Instant};

use jc_unshare::{Context, Error, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

const PATH: &str = "/proc/self/ns/net";
/// Anybody in the namespace can take the lock; nobody can keep us waiting for good.
const PATIENCE: Duration = Duration::from_secs(20);

/// The lock of the network namespace in which this process is when it makes this.
pub struct Lock(File);

impl Lock {
    /// The lock, not taken yet.
    pub fn open() -> Result<Self> {
        File::open(PATH).on("open", PATH).map(Self)
    }

    /// Keeps bridges as they are: together with others who do the same.
    pub fn keep_bridges(&self) -> Result<()> {
        self.take(FlockOperation::NonBlockingLockShared)
    }

    /// Lets this process alone make and remove bridges.
    pub fn change_bridges(&self) -> Result<()> {
        self.take(FlockOperation::NonBlockingLockExclusive)
    }

    fn take(&self, operation: FlockOperation) -> Result<()> {
        let start = Instant::now();
        loop {
            match flock(&self.0, operation) {
                Err(Errno::WOULDBLOCK | Errno::INTR) if start.elapsed() < PATIENCE => {
                    sleep(Duration::from_micros(200));
                }
                Err(Errno::WOULDBLOCK) => {
                    let seconds = PATIENCE.as_secs();
                    let message = format!("flock {PATH}: held by others for {seconds} seconds");
                    return Err(Error::new(message));
                }
                other => return other.on("flock", PATH),
            }
        }
    }
}
