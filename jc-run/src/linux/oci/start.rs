//! `start`: the gate before the program opens.

use std::fs::File;
use std::io::Write;

use jc_unshare::{Context, Error, Result};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use super::chain::Events;
use super::create::undo;
use super::environment::Environment;
use super::state::{Container, EVENTS, GATE, Record, Root, Status};
use super::{hooks, list};

/// Starts the program of a created container.
pub fn command(environment: &Environment, id: &str) -> Result<()> {
    let container = Root::open(environment.root.as_deref(), false)?.lock(id)?;
    let mut record = container.read()?;
    start(&container, &mut record)?;
    run_hooks(&record).or_else(|error| undo(environment, container, &record, error))
}

/// Runs the `poststart` hooks. A failure ends the container (runtime.md, "Lifecycle").
pub fn run_hooks(record: &Record) -> Result<()> {
    hooks::run("poststart", &record.config.hooks.poststart, &record.state(Status::Running))
}

/// Opens the gate, and waits for the execution of the program.
pub fn start(container: &Container, record: &mut Record) -> Result<()> {
    match list::status(record)? {
        Status::Created => {}
        Status::Creating => return Err(Error::new("cannot start a container that is not created")),
        Status::Stopped => return Err(Error::new("cannot start a container that has stopped")),
        Status::Paused => return Err(Error::new("cannot start a container in the paused state")),
        Status::Running => {
            return Err(Error::new("cannot start an already running container"));
        }
    }
    // Links write to the FIFO as long as it has a reader.
    let mut events = Events::open(container)?;
    open_gate(container)?;
    let outcome = events.expect_end(&record.config.process()?.args[0]);
    record.phase = Status::Running;
    container.write(record)?;
    container.remove_file(GATE)?;
    container.remove_file(EVENTS)?;
    outcome
}

fn open_gate(container: &Container) -> Result<()> {
    let path = container.path(GATE);
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let gate = match open(&path, flags, Mode::empty()) {
        // No process waits at the gate: the program has ended, or an earlier `start` has been killed.
        Err(Errno::NXIO) => {
            return Err(Error::new("cannot start a container that does not wait for its start"));
        }
        opened => opened.on("open", &path)?,
    };
    File::from(gate).write_all(b"!").on("write", &path)
}
