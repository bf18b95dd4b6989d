//! `run`: the life of a container under this process.

use std::path::Path;
use std::process::ExitCode;

use jc_unshare::Result;

use super::args::Run;
use super::create::{Bundle, undo};
use super::environment::Environment;
use super::state::{Container, Record, Status};
use super::wait::{Signals, attend};
use super::{delete, handover, start};

/// The command `run`: see jc-oci(1).
pub fn command(environment: &Environment, options: &Run) -> Result<ExitCode> {
    let mut bundle = Bundle::read(&options.create)?;
    bundle.is_attended = !options.detach && !environment.prints;
    let handover = &options.create.handover;
    let socket = handover.console_socket.as_deref();
    let relays = socket.is_none() && !options.detach && bundle.config.process()?.terminal;
    if environment.prints {
        let path = relays.then(|| Path::new("console"));
        return bundle.print(environment, socket.or(path)).map(|()| ExitCode::SUCCESS);
    }
    if options.detach {
        begin(environment, &bundle, options, socket)?;
        return Ok(ExitCode::SUCCESS);
    }
    let stay = |socket: Option<&Path>| -> Result<u8> {
        let signals = Signals::block()?;
        let (container, record) = begin(environment, &bundle, options, socket)?;
        container.unlock()?;
        let code = signals.wait(record.process())?;
        // Another command may have removed the container meanwhile.
        if !options.keep && container.lock()? {
            delete::destroy(environment, container, &record)?;
        }
        Ok(code)
    };
    if relays {
        attend(environment, |socket| stay(Some(socket)))
    } else {
        stay(socket).map(Into::into)
    }
}

/// Creates and starts the container.
fn begin(
    environment: &Environment,
    bundle: &Bundle<'_>,
    options: &Run,
    socket: Option<&Path>,
) -> Result<(Container, Record)> {
    let (container, mut record) = bundle.create(environment, socket)?;
    let started = match record.phase {
        // The chain has not stopped before the program.
        Status::Running => Ok(()),
        _ => start::start(&container, &mut record),
    };
    let begun = started.and_then(|()| {
        start::run_hooks(&record)?;
        let give = |process| handover::give(&options.create.handover, process);
        record.process().map_or(Ok(()), give)
    });
    match begun {
        Ok(()) => Ok((container, record)),
        Err(error) => undo(environment, container, &record, error),
    }
}
