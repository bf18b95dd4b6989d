//! The thread for lookups that may wait for a file system, such as one that the payload serves itself.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use super::event::use_bit;
use super::place::{Place, Root};
use super::shared::{Shared, lock};
use super::tables::Use;

/// The most lookups that wait.
pub const MOST_WAITING: usize = 4096;

/// A task of the thread.
pub enum Job {
    /// A lookup.
    Look(Look),
    /// The answer that all jobs before are done.
    Flush(SyncSender<()>),
}

/// A lookup of a path.
pub struct Look {
    pub root: Arc<Root>,
    pub place: Place,
    /// The number of the program that the path leads to: its interpreters are looked up too.
    pub program: Option<usize>,
}

/// Does all jobs, to the end of the channel.
pub fn run(jobs: &Receiver<Job>, shared: &Shared) {
    for job in jobs {
        match job {
            Job::Look(look) => look.run(shared),
            // The parent that gave up needs no answer.
            Job::Flush(done) => drop(done.try_send(())),
        }
    }
}

impl Look {
    fn run(self, shared: &Shared) {
        let Self { root, place, program } = self;
        let found = root.look(&place);
        let is_program = found.as_ref().is_none_or(|found| found.is_program());
        let interpreters = match program {
            Some(_) if is_program => root.interpreters(&place),
            _ => Vec::new(),
        };
        let interpreters: Vec<_> =
            interpreters.into_iter().map(|place| (root.look(&place), place)).collect();
        let mut tables = lock(shared);
        if let Some(number) = program.filter(|_| !is_program) {
            tables.remove_program(number);
        }
        if let Some(found) = found {
            tables.complete(&place.path, found);
        }
        for (found, place) in interpreters {
            tables.add_file(None, Use { place, usage: use_bit("execute"), flags: 0 }, found);
        }
    }
}
