//! Writes of unpacked data to the disk during the pull, so that the sync at its end is short.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use crate::sys;

/// The unpacked bytes between two writes.
const STEP: u64 = 64 << 20;

/// Counts unpacked bytes, and starts a write after each step.
#[derive(Clone)]
pub struct Writeback {
    unpacked: Arc<AtomicU64>,
    start: SyncSender<()>,
}

impl Writeback {
    /// Writes the data of the file system of `directory`. The kernel reports an error of the disk once
    /// for each open file, so `directory` is a descriptor of its own: the sync at the end gets the error,
    /// too.
    pub fn new(directory: OwnedFd) -> Self {
        // The channel has no room: during a write, a request for another one fails.
        let (start, requests) = sync_channel(0);
        // Without this thread, the sync at the end writes all data.
        drop(std::thread::Builder::new().spawn(move || {
            while requests.recv().is_ok() {
                let _: rustix::io::Result<()> = sys::sync(&directory);
            }
        }));
        Self { unpacked: Arc::default(), start }
    }

    /// Adds unpacked bytes, which may start a write.
    pub fn add(&self, bytes: usize) {
        let before = self.unpacked.fetch_add(bytes as u64, Ordering::Relaxed);
        if before / STEP != (before + bytes as u64) / STEP {
            // The send fails during a write.
            let _: Result<(), _> = self.start.try_send(());
        }
    }
}
