//! `delete`: the end of a container, and of all that was made for it.

use std::time::Duration;

use jc_unshare::process::{Process, ends_within, send};
use jc_unshare::{Error, Kind, Result};
use nix::libc::SIGKILL;

use super::args::Delete;
use super::chain::Events;
use super::environment::Environment;
use super::shared::SharedRoot;
use super::state::{Container, Record, Root, Status};
use super::{group, hooks, list, systemd};

/// The longest time from the kill of a program to its end.
const PATIENCE: Duration = Duration::from_secs(10);

/// The command `delete`: see jc-oci(1).
pub fn command(environment: &Environment, options: &Delete) -> Result<()> {
    let root = Root::open(environment.root.as_deref(), false)?;
    let container = match root.lock(&options.container.id) {
        Err(error) if error.kind() == Kind::NotFound && options.force => return Ok(()),
        found => found?,
    };
    let Some(record) = container.try_read()? else {
        // A `create` has been killed before it made anything else.
        return container.remove();
    };
    let status = list::status(&record)?;
    if status != Status::Stopped && !options.force {
        let (id, status) = (&record.id, status.word());
        return Err(Error::new(format_args!(
            "cannot delete container {id} that is not stopped: {status}"
        )));
    }
    destroy(environment, container, &record)
}

/// Ends all processes of a container, and removes its group and its directory.
pub fn destroy(environment: &Environment, container: Container, record: &Record) -> Result<()> {
    let runs = record.status()? != Status::Stopped;
    let process = record.process().filter(|_| runs).map(Process::open).transpose()?.flatten();
    if let Some(process) = &process {
        send(process, SIGKILL)?;
    }
    if record.phase == Status::Creating {
        // The chain of a killed `create` makes directories of the group until it comes to a gate, which is closed.
        Events::wait_for_end(&container, PATIENCE)?;
    }
    if let Some(path) = &record.cgroup
        && !group::remove_empty(path)?
        && group::exists(path)?
    {
        group::thaw(record)?;
        // systemd removes the group of a scope once it is empty, and may be first.
        group::act_if_there(record, "--remove")?;
    }
    if process.is_some_and(|process| !ends_within(&process, PATIENCE)) {
        let seconds = PATIENCE.as_secs();
        return Err(Error::new(format_args!(
            "{}: still running {seconds} seconds after SIGKILL",
            record.id
        )));
    }
    record.shared_root.as_ref().map_or(Ok(()), SharedRoot::undo)?;
    record.unit.as_deref().map_or(Ok(()), systemd::stop)?;
    container.remove()?;
    let state = record.state(Status::Stopped);
    for hook in &record.config.hooks.poststop {
        // The specification demands a warning, and that the lifecycle goes on (runtime.md, "Lifecycle").
        if let Err(error) = hooks::run_one("poststop", hook, &state) {
            environment.log.warn(&error.to_string());
        }
    }
    Ok(())
}
