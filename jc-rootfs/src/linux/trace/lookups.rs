//! The thread for lookups that may wait for a file system, such as one that the payload serves itself.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use super::event::{USES, bit};
use super::place::{Found, Place, Root};
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
    /// The number of a program whose execution fails if the file cannot be executed.
    pub program: Option<usize>,
    /// The interpreters of the file are looked up too.
    pub is_interpreted: bool,
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
        let Self { root, place, program, is_interpreted } = self;
        let found = root.look(&place);
        let is_program = found.as_ref().is_none_or(Found::is_program);
        let interpreters =
            if is_interpreted && is_program { root.interpreters(&place) } else { Vec::new() };
        let usage = bit(&USES, "execute");
        let interpreters = interpreters.into_iter().map(|place| {
            let found = root.look(&place);
            Use { place, usage, flags: 0, found }
        });
        let interpreters: Vec<Use> = interpreters.collect();
        let mut tables = lock(shared);
        if let Some(number) = program.filter(|_| !is_program) {
            tables.remove_program(number);
        }
        if let Some(found) = found {
            tables.complete(&place.path, found);
        }
        for used in &interpreters {
            tables.add_file(None, used);
        }
    }
}
