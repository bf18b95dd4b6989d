//! The state that the threads of a recorder share.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use jc_unshare::Error;

use super::tables::Tables;

/// The first program that is recorded.
#[derive(Clone, Debug, Default)]
pub struct Beginning {
    pub arguments: Vec<Vec<u8>>,
    /// The working directory of the program.
    pub directory: Vec<u8>,
}

/// A wait for the payload that a report mentions.
const LONG: Duration = Duration::from_secs(1);

/// The longest wait for memory of the payload. The payload may serve the memory itself (userfaultfd(2)), by calls that
/// wait for the recorder.
const STUCK: Duration = Duration::from_secs(10);

/// The state of all threads.
#[derive(Debug, Default)]
pub struct Shared {
    pub tables: Mutex<Tables>,
    /// The start of the call that the recorder answers now, which may wait for memory of the payload.
    answering: Mutex<Option<Instant>>,
    /// The error that ended the recorder.
    pub failure: OnceLock<Error>,
    beginning: OnceLock<Beginning>,
}

impl Shared {
    /// The state before the first call.
    pub fn new(tables: Tables) -> Self {
        Self { tables: Mutex::new(tables), ..Self::default() }
    }

    /// Begins or ends an answer. Returns whether the answer that ends took long.
    pub fn set_answering(&self, is_answering: bool) -> bool {
        let now = is_answering.then(Instant::now);
        let mut answering = self.answering.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *answering, now);
        before.is_some_and(|before| before.elapsed() > LONG)
    }

    /// Whether the recorder has been waiting for memory of the payload that long.
    fn is_stalled_for(&self, time: Duration) -> bool {
        let answering = self.answering.lock().unwrap_or_else(PoisonError::into_inner);
        answering.is_some_and(|since| since.elapsed() > time)
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

    /// Sets the error that ends the recorder. The first error is the one to report.
    pub fn fail(&self, error: Error) {
        let _: std::result::Result<(), Error> = self.failure.set(error);
    }

    /// Sets the first program, once.
    pub fn begin(&self, beginning: impl FnOnce() -> Beginning) {
        self.beginning.get_or_init(beginning);
    }

    /// The first program, if one has been executed.
    pub fn beginning(&self) -> Option<&Beginning> {
        self.beginning.get()
    }
}

/// Locks the tables. A thread that panics ends the process.
pub fn lock(shared: &Shared) -> MutexGuard<'_, Tables> {
    shared.tables.lock().unwrap_or_else(PoisonError::into_inner)
}
