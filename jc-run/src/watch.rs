//! What the supervisor watches besides its child: the FIFO that tells when the payload begins, then the
//! payload itself, and the outputs of a detached payload.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use jc_unshare::process::Process;
use jc_unshare::supervise::{Beside, are_ready, at_end, readable};
use jc_unshare::{Context, Result};
use rustix::event::PollFd;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, ioctl_fionread};

use crate::console::Console;
use crate::log::Log;

/// How many bytes are read at once; a pipe holds as many by default (pipe(7)).
const CHUNK: usize = 64 << 10;

/// The most bytes that a pipe of an unprivileged user holds, unless the administrator has said otherwise
/// (pipe-max-size in proc_sys_fs(5)); more than a terminal does.
const PIPE: u64 = 1 << 20;

/// What the supervisor is told of.
pub enum News {
    /// The payload has been executed.
    Started(Process),
    /// So many bytes of its output are not in the log.
    LogLost(u64),
}

/// What is watched, and what is done about it.
pub struct Watch<F, G> {
    /// The FIFO, not blocking, until all has been told.
    fifo: Option<File>,
    /// Called with what has happened.
    news: F,
    /// The payload's descriptor while it runs.
    payload: Option<OwnedFd>,
    /// Called when the payload has ended, while the chain still undoes what it has made.
    ended: G,
    outputs: Outputs,
    /// Whether all that was to be done has been. After the first failure nothing more is.
    outcome: Result<()>,
}

/// The outputs of a detached payload; of one in the foreground there are none.
#[derive(Default)]
pub struct Outputs {
    /// The socket that a terminal comes by, until it has come, with its path and the log.
    console: Option<(Console, PathBuf, Log)>,
    logged: Vec<Output>,
}

impl Outputs {
    /// Pipes that are read, each with its log, and perhaps the socket that a terminal comes by.
    pub fn new(
        pipes: Vec<(OwnedFd, Log)>,
        console: Option<(Console, PathBuf, Log)>,
    ) -> Result<Self> {
        let logged = pipes.into_iter().map(|(source, log)| Output::new(source, log));
        Ok(Self { console, logged: logged.collect::<Result<_>>()? })
    }

    fn lost(&self) -> u64 {
        self.logged.iter().map(|output| output.log.lost()).sum()
    }
}

/// One output: what is read, until its end, and the log that it goes to.
struct Output {
    source: Option<OwnedFd>,
    log: Log,
}

impl Output {
    /// A read must not wait: a payload that is root can read its own pipe, and be faster.
    fn new(source: OwnedFd, log: Log) -> Result<Self> {
        let flags = fcntl_getfl(&source).op("F_GETFL")?;
        fcntl_setfl(&source, flags | OFlags::NONBLOCK).op("F_SETFL")?;
        Ok(Self { source: Some(source), log })
    }

    /// Copies what has come. Gives the number of bytes, 0 if there is nothing now or nothing any more.
    fn copy(&mut self) -> usize {
        let Some(source) = &self.source else { return 0 };
        let mut buffer = vec![0; CHUNK];
        match rustix::io::read(source, &mut buffer) {
            Err(Errno::AGAIN | Errno::INTR) => 0,
            // EIO: a terminal that nobody has open any more.
            Ok(0) | Err(_) => {
                self.source = None;
                0
            }
            Ok(count) => {
                self.log.append(&buffer[..count]);
                count
            }
        }
    }

    /// Copies what the payload wrote before its end. A process that goes on writing, which only
    /// `--pid host` leaves, must not keep the supervisor from its own end.
    fn finish(&mut self) {
        let Some(source) = &self.source else { return };
        let mut left = ioctl_fionread(source).unwrap_or_default().max(PIPE) as usize;
        while left > 0 {
            match self.copy() {
                0 => return,
                count => left = left.saturating_sub(count),
            }
        }
    }
}

impl<F: FnMut(News) -> Result<()>, G: FnMut() -> Result<()>> Watch<F, G> {
    /// Watches these.
    pub fn new(fifo: File, outputs: Outputs, news: F, ended: G) -> Self {
        Self { fifo: Some(fifo), news, payload: None, ended, outputs, outcome: Ok(()) }
    }

    /// Sees to what is left when the chain has ended.
    pub fn finish(mut self) -> Result<()> {
        while self.outcome.is_ok() {
            let ready = are_ready(self.others())?;
            if !ready.contains(&true) {
                break;
            }
            self.outcome = self.see(&ready);
        }
        self.outputs.logged.iter_mut().for_each(Output::finish);
        match self.outputs.lost() {
            0 => self.outcome,
            bytes => self.outcome.and((self.news)(News::LogLost(bytes))),
        }
    }

    /// What is awaited besides the outputs.
    fn others(&self) -> Vec<PollFd<'_>> {
        let fifo = self.fifo.as_ref().map(|fifo| at_end(fifo.as_fd()));
        let payload = self.payload.as_ref().map(AsFd::as_fd);
        let console = self.outputs.console.as_ref().map(|(console, ..)| console.as_fd());
        fifo.into_iter().chain(payload.into_iter().chain(console).map(readable)).collect()
    }

    /// Sees to what is ready of the others.
    fn see(&mut self, ready: &[bool]) -> Result<()> {
        let (fifo, rest) = ready.split_at(usize::from(self.fifo.is_some()));
        let (payload, console) = rest.split_at(usize::from(self.payload.is_some()));
        if fifo.contains(&true)
            && let Some(fifo) = self.fifo.take()
            && let Some(process) = told(&io::read_to_string(fifo).op("read --started")?)
        {
            (self.news)(News::Started(process))?;
            // None if it has ended already: then it is the chain's end that is waited for.
            self.payload = process.open()?;
        }
        if payload.contains(&true) {
            self.payload = None;
            (self.ended)()?;
        }
        if console.contains(&true)
            && let Some((console, path, log)) = self.outputs.console.take()
        {
            self.outputs.logged.push(Output::new(console.take(&path)?, log)?);
        }
        Ok(())
    }

    /// Copies the outputs that are ready, and tells once while the payload runs if some of that is lost.
    fn log(&mut self, ready: &[bool]) -> Result<()> {
        let lost_before = self.outputs.lost() > 0;
        let open = self.outputs.logged.iter_mut().filter(|output| output.source.is_some());
        for (output, _) in open.zip(ready).filter(|(_, ready)| **ready) {
            output.copy();
        }
        match self.outputs.lost() {
            bytes if bytes > 0 && !lost_before => (self.news)(News::LogLost(bytes)),
            _ => Ok(()),
        }
    }
}

impl<F: FnMut(News) -> Result<()>, G: FnMut() -> Result<()>> Beside for Watch<F, G> {
    fn awaited(&self) -> Vec<PollFd<'_>> {
        let open = self.outputs.logged.iter().filter_map(|output| output.source.as_ref());
        self.others().into_iter().chain(open.map(|source| readable(source.as_fd()))).collect()
    }

    fn attend(&mut self, ready: &[bool]) {
        let (others, outputs) = ready.split_at(self.others().len());
        // The outputs first: a terminal that comes now was not waited for.
        let logged = self.log(outputs);
        if let Err(error) = logged.and_then(|()| self.see(others)) {
            // The outputs stay: a payload must not wait for somebody who reads them.
            (self.fifo, self.payload, self.outputs.console) = (None, None, None);
            self.outcome = Err(error);
        }
    }
}

/// The payload, if it has been executed: one line, and none after it.
fn told(text: &str) -> Option<Process> {
    let (line, rest) = text.split_once('\n')?;
    rest.is_empty().then(|| line.parse().ok()).flatten()
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
