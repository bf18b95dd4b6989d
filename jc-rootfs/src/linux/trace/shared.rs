//! The state that the threads of a recorder share.

use std::io::{PipeReader, PipeWriter, Write, pipe};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use jc_unshare::{Context, Error, Result};

use super::super::sys::notify::MOST_THREADS;
use super::place::Root;
use super::tables::{Lines, Tables};

/// A wait for the payload that a report mentions.
const LONG: Duration = Duration::from_secs(1);

/// The longest wait for memory of the payload. The payload may serve the memory itself (userfaultfd(2)), by calls that
/// wait for the recorder.
const STUCK: Duration = Duration::from_secs(10);

/// The state of all threads.
#[derive(Debug)]
pub struct Shared {
    pub tables: Mutex<Tables>,
    /// The root of the payload, from its first execve(2) on.
    pub root: OnceLock<Arc<Root>>,
    /// Processes may have other roots.
    pub has_moved: AtomicBool,
    /// When each thread of the recorder began to read the facts of a call, which may wait for memory of the payload.
    reading: [Mutex<Option<Instant>>; MOST_THREADS],
    /// The error that ended the recorder.
    pub failure: OnceLock<Error>,
    /// The pipe that wakes the main thread after a failure.
    alarm: PipeWriter,
}

impl Shared {
    /// The state before the first call, with the lines of `--all`, and the pipe that a failure makes ready.
    pub fn new(lines: Option<Lines>) -> Result<(Self, PipeReader)> {
        let (failed, alarm) = pipe().op("pipe")?;
        let mut tables = Tables::default();
        tables.lines = lines;
        let tables = Mutex::new(tables);
        let (root, has_moved, reading, failure) = Default::default();
        Ok((Self { tables, root, has_moved, reading, failure, alarm }, failed))
    }

    /// Begins or ends the reading of a thread. Returns whether the reading that ends took long.
    pub fn set_reading(&self, thread: usize, is_reading: bool) -> bool {
        let now = is_reading.then(Instant::now);
        let mut reading = self.reading[thread].lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *reading, now);
        before.is_some_and(|before| before.elapsed() > LONG)
    }

    /// Whether a thread of the recorder has been waiting for memory of the payload that long.
    fn is_stalled_for(&self, time: Duration) -> bool {
        self.reading.iter().any(|reading| {
            let reading = reading.lock().unwrap_or_else(PoisonError::into_inner);
            reading.is_some_and(|since| since.elapsed() > time)
        })
    }

    /// Whether the recorder has been waiting long for memory of the payload.
    pub fn is_stalled(&self) -> bool {
        self.is_stalled_for(LONG)
    }

    /// Waits until the recorder has waited so long for memory of the payload that the payload is to blame.
    pub fn wait_for_stall(&self) {
        while !self.is_stalled_for(STUCK) {
            sleep(LONG);
        }
    }

    /// Sets the error that ends the recorder, and wakes the main thread. The first error is the one to report.
    pub fn fail(&self, error: Error) {
        let _: std::result::Result<(), Error> = self.failure.set(error);
        // The other end is closed when the program has ended.
        let _: std::io::Result<()> = (&self.alarm).write_all(b"!");
    }
}

/// Locks the tables. A thread that panics ends the process.
pub fn lock(shared: &Shared) -> MutexGuard<'_, Tables> {
    shared.tables.lock().unwrap_or_else(PoisonError::into_inner)
}
