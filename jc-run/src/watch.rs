//! What the supervisor watches besides its child: the FIFO that tells when the payload begins, then the
//! payload itself, and for a detached terminal what it shows.

use std::fs::File;
use std::io::{self, Write};
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use jc_unshare::process::Process;
use jc_unshare::supervise::{Beside, are_ready, at_end, readable};
use jc_unshare::{Context, Result};
use rustix::event::PollFd;
use rustix::io::Errno;

use crate::console::Console;

/// What is watched, and what is done about it.
pub struct Watch<F, G> {
    /// The FIFO, not blocking, until all has been told.
    fifo: Option<File>,
    /// Called when the payload has begun.
    started: F,
    /// The payload's descriptor while it runs.
    payload: Option<OwnedFd>,
    /// Called when the payload has ended, while the chain still undoes what it has made.
    ended: G,
    terminal: Terminal,
    /// Whether all that was to be done has been. After the first failure nothing more is.
    outcome: Result<()>,
}

/// A terminal that nobody sits at.
pub enum Terminal {
    /// There is none.
    None,
    /// It is to come: the socket, its path, and the file for what is shown.
    Awaited(Console, PathBuf, File),
    /// Its master, and that file.
    Shown(OwnedFd, File),
}

impl<F: FnMut(Process) -> Result<()>, G: FnMut() -> Result<()>> Watch<F, G> {
    /// Watches these two.
    pub fn new(fifo: File, terminal: Terminal, started: F, ended: G) -> Self {
        let fifo = Some(fifo);
        Self { fifo, started, payload: None, ended, terminal, outcome: Ok(()) }
    }

    /// Sees to what is left when the chain has ended.
    pub fn finish(mut self) -> Result<()> {
        while self.outcome.is_ok() {
            let ready = are_ready(self.awaited())?;
            if !ready.contains(&true) {
                break;
            }
            self.see(&ready)?;
        }
        self.outcome
    }

    /// Sees to what is ready.
    fn see(&mut self, ready: &[bool]) -> Result<()> {
        let (fifo, rest) = ready.split_at(usize::from(self.fifo.is_some()));
        let (payload, terminal) = rest.split_at(usize::from(self.payload.is_some()));
        if fifo.contains(&true)
            && let Some(fifo) = self.fifo.take()
            && let Some(process) = told(&io::read_to_string(fifo).op("read --started")?)
        {
            (self.started)(process)?;
            // None if it has ended already: then it is the chain's end that is waited for.
            self.payload = process.open();
        }
        if payload.contains(&true) {
            self.payload = None;
            (self.ended)()?;
        }
        if terminal.contains(&true) {
            self.terminal = match mem::replace(&mut self.terminal, Terminal::None) {
                Terminal::Awaited(console, path, log) => Terminal::Shown(console.take(&path)?, log),
                Terminal::Shown(master, log) if copy(&master, &log)? => {
                    Terminal::Shown(master, log)
                }
                _ => Terminal::None,
            };
        }
        Ok(())
    }
}

impl<F: FnMut(Process) -> Result<()>, G: FnMut() -> Result<()>> Beside for Watch<F, G> {
    fn awaited(&self) -> Vec<PollFd<'_>> {
        let terminal = match &self.terminal {
            Terminal::None => None,
            Terminal::Awaited(console, ..) => Some(console.as_fd()),
            Terminal::Shown(master, _) => Some(master.as_fd()),
        };
        let fifo = self.fifo.as_ref().map(|fifo| at_end(fifo.as_fd()));
        let payload = self.payload.as_ref().map(AsFd::as_fd);
        fifo.into_iter().chain(payload.into_iter().chain(terminal).map(readable)).collect()
    }

    fn attend(&mut self, ready: &[bool]) {
        if let Err(error) = self.see(ready) {
            (self.fifo, self.payload, self.terminal) = (None, None, Terminal::None);
            self.outcome = Err(error);
        }
    }
}

/// The payload, if it has been executed: one line, and none after it.
fn told(text: &str) -> Option<Process> {
    let (line, rest) = text.split_once('\n')?;
    rest.is_empty().then(|| line.parse().ok()).flatten()
}

/// Copies what the terminal shows to the log; says whether more may come.
fn copy(master: &OwnedFd, mut log: &File) -> Result<bool> {
    let mut buffer = [0; 4096];
    match rustix::io::read(master, &mut buffer) {
        // So does a terminal say that nobody has it open any more.
        Ok(0) | Err(Errno::IO) => Ok(false),
        other => {
            log.write_all(&buffer[..other.op("read terminal")?]).op("write log").map(|()| true)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_one_line_and_nothing_taken_back() {
        assert_eq!(told("7 99\n"), "7 99".parse().ok());
        for text in ["", "7 99", "7 99\nfailed\n", "x\n"] {
            assert_eq!(told(text), None, "{text:?}");
        }
    }
}
