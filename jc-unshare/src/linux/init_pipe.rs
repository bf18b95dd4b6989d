//! The pipe by which a PID 1 of `--init` reports to the link that waits for it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{read, write};

use super::poll::{Poller, can_be_read, readable, wait};
use super::signals::stops_by_terminal;
use crate::error::{Context, Error, Result};

/// An event of the program that PID 1 runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum InitEvent {
    /// This signal stopped the program.
    Stopped(i32),
    /// This signal killed the program.
    Killed(i32),
}

/// The bit that marks [`InitEvent::Killed`]; signals have numbers up to 64.
const KILLED: u8 = 0x80;

/// Writes an event to the pipe.
pub fn write_event(writer: &OwnedFd, event: InitEvent) -> Result<()> {
    let byte = match event {
        InitEvent::Stopped(signal) => signal as u8,
        InitEvent::Killed(signal) => signal as u8 | KILLED,
    };
    write(writer, &[byte]).op("write to jc-unshare").map(drop)
}

/// Reads an event. `None`: the pipe is at its end.
fn read_event(reader: &OwnedFd) -> Result<Option<InitEvent>> {
    let mut byte = [0];
    let length = read(reader, &mut byte).op("read from --init")?;
    let signal = i32::from(byte[0] & !KILLED);
    let event = match byte[0] & KILLED {
        0 => InitEvent::Stopped(signal),
        _ => InitEvent::Killed(signal),
    };
    // A payload that traces PID 1 writes any byte, and only a signal that stops may be raised here.
    let is_event = matches!(event, InitEvent::Killed(_)) || stops_by_terminal(signal);
    if length > 0 && !is_event {
        return Err(Error::new(format_args!("read from --init: {signal} is no stop signal")));
    }
    Ok((length > 0).then_some(event))
}

/// Discards the events in the pipe. Returns the last signal that killed the program.
pub fn drain_events(reader: &OwnedFd) -> Result<Option<i32>> {
    let mut killed = None;
    // A pipe at its end is readable.
    while can_be_read(reader.as_fd())?
        && let Some(event) = read_event(reader)?
    {
        if let InitEvent::Killed(signal) = event {
            killed = Some(signal);
        }
    }
    Ok(killed)
}

/// Waits for an event of PID 1, or for a signal that can be read (`None`). Meanwhile `poller` handles its
/// descriptors.
pub fn wait_for_event(
    reader: &mut Option<OwnedFd>,
    signals: BorrowedFd<'_>,
    mut poller: Option<&mut (dyn Poller + '_)>,
) -> Result<Option<InitEvent>> {
    // Without a pipe and a poller, the caller's read of the signalfd waits.
    while reader.is_some() || poller.is_some() {
        let pipe = reader.as_ref().map(AsFd::as_fd);
        let others = poller.as_ref().map(|poller| poller.polled()).unwrap_or_default();
        let own = pipe.into_iter().chain([signals]).map(readable);
        let ready = wait(own.chain(others).collect(), None)?;
        let (has_event, ready) = ready.split_at(usize::from(reader.is_some()));
        // The signal comes first: the SIGINT of Ctrl-C reaches this process before the report of PID 1.
        if ready[0] {
            break;
        } else if let (Some(pipe), [true]) = (&*reader, has_event) {
            if let Some(event) = read_event(pipe)? {
                return Ok(Some(event));
            }
            *reader = None;
        } else if let Some(poller) = poller.as_deref_mut() {
            poller.handle(&ready[1..]);
        }
    }
    Ok(None)
}
