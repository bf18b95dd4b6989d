//! Unpacked data on its way to the disk while more comes: the sync in the end finds little left.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use crate::sys;

/// So much is unpacked between one start of writing and the next, in bytes.
const STEP: u64 = 64 << 20;

/// Counts what is unpacked, and has it written now and then.
#[derive(Clone)]
pub struct Writeback {
    unpacked: Arc<AtomicU64>,
    start: SyncSender<()>,
}

impl Writeback {
    /// Writes what the file system of `directory` has. An error of the disk is told once through each
    /// open file, so this must be one of its own: the sync in the end has to learn of it too.
    pub fn new(directory: OwnedFd) -> Self {
        // Without room for a message: while it writes, nobody can ask it to.
        let (start, asked) = sync_channel(0);
        // Without this thread all of the data is left to the sync in the end.
        drop(std::thread::Builder::new().spawn(move || {
            while asked.recv().is_ok() {
                let _: rustix::io::Result<()> = sys::sync(&directory);
            }
        }));
        Self { unpacked: Arc::default(), start }
    }

    /// So many bytes more have been unpacked.
    pub fn add(&self, bytes: usize) {
        let before = self.unpacked.fetch_add(bytes as u64, Ordering::Relaxed);
        if before / STEP != (before + bytes as u64) / STEP {
            // It is at it already if this fails.
            let _: Result<(), _> = self.start.try_send(());
        }
    }
}
