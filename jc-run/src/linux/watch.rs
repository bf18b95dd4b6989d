//! The descriptors that the supervisor watches besides its child: the events of links, the payload, and the
//! outputs of a detached payload.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use jc_unshare::process::Process;
use jc_unshare::supervise::{Poller, are_ready, at_end, readable};
use jc_unshare::{Context, Result};
use rustix::event::PollFd;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, ioctl_fionread, read, retry_on_intr};

use super::console::Console;
use super::log::Log;
use super::reports::Reports;

/// The number of bytes of one read, which is the default capacity of a pipe (pipe(7)).
const CHUNK: usize = 64 << 10;

/// The largest default capacity of an ordinary user's pipe in bytes (pipe-max-size in proc_sys_fs(5)). The buffer of a
/// terminal is smaller.
const PIPE: u64 = 1 << 20;

/// The changes of which the supervisor is notified.
pub enum News<'a> {
    /// The payload has been executed, after these events of the links.
    Started(Process, &'a Reports),
    /// The number of bytes of the payload's output that are not in the log.
    LogLost(u64),
}

/// The pipes to which links write events.
#[derive(Debug)]
pub struct Channels {
    /// The pipe of the last link, which is closed when the payload is executed.
    pub last: Reports,
    /// The pipe of the other links. Waiting links have it open to their end.
    pub others: Reports,
}

/// The watched descriptors, and the functions that handle them.
pub struct Watch<F, G> {
    channels: Channels,
    /// The function for changes.
    news: F,
    /// The payload's descriptor while it runs.
    payload: Option<OwnedFd>,
    /// The function for the end of the payload, while links still remove their objects.
    ended: G,
    outputs: Outputs,
    /// The first failure, after which only the outputs are watched.
    outcome: Result<()>,
}

/// The kinds of watched descriptors.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Source {
    LastLink,
    OtherLinks,
    Payload,
    Console,
    Output(usize),
}

/// The outputs of a detached payload. A payload in the foreground has none here.
#[derive(Default)]
pub struct Outputs {
    /// The socket by which jc-rootfs passes the terminal, with its path and the log of the terminal.
    console: Option<(Console, PathBuf, Log)>,
    logged: Vec<Output>,
}

impl Outputs {
    /// Outputs with their logs: pipes, and a socket if a terminal follows.
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

/// An output: the descriptor, until its end, and the log.
struct Output {
    source: Option<OwnedFd>,
    log: Log,
}

impl Output {
    /// Makes the descriptor non-blocking, since a payload as root can read its own pipe before this process.
    fn new(source: OwnedFd, log: Log) -> Result<Self> {
        let flags = fcntl_getfl(&source).op("F_GETFL")?;
        fcntl_setfl(&source, flags | OFlags::NONBLOCK).op("F_SETFL")?;
        Ok(Self { source: Some(source), log })
    }

    /// Copies bytes to the log. Returns their number. 0: no bytes are available, or the output is at its end.
    fn copy(&mut self) -> Result<usize> {
        let Some(source) = &self.source else { return Ok(0) };
        let mut buffer = vec![0; CHUNK];
        match retry_on_intr(|| read(source, &mut buffer)) {
            Err(Errno::AGAIN) => Ok(0),
            Ok(count @ 1..) => {
                self.log.append(&buffer[..count]);
                Ok(count)
            }
            other => {
                self.source = None;
                match other {
                    // No process has the terminal open.
                    Err(Errno::IO) => Ok(0),
                    other => other.op("read output"),
                }
            }
        }
    }

    /// Copies the output that the payload wrote before its end, up to a bound: with `--pid host`, a process that survives
    /// the payload may still write, and must not delay the end of the supervisor.
    fn finish(&mut self) -> Result<()> {
        let Some(source) = &self.source else { return Ok(()) };
        let mut left = ioctl_fionread(source).unwrap_or_default().max(PIPE) as usize;
        while left > 0 {
            match self.copy()? {
                0 => break,
                count => left = left.saturating_sub(count),
            }
        }
        Ok(())
    }
}

impl<F: FnMut(News<'_>) -> Result<()>, G: FnMut() -> Result<()>> Watch<F, G> {
    /// A watch before the start of the payload.
    pub fn new(channels: Channels, outputs: Outputs, news: F, ended: G) -> Self {
        Self { channels, news, payload: None, ended, outputs, outcome: Ok(()) }
    }

    /// Handles the remaining events and output after the end of the chain. Returns the events of the links.
    pub fn finish(mut self) -> Result<Reports> {
        while self.outcome.is_ok() {
            let (sources, fds): (Vec<_>, Vec<_>) = self.sources(false).into_iter().unzip();
            let ready = are_ready(fds)?;
            if !ready.contains(&true) {
                break;
            }
            self.handle_ready(&sources, &ready);
        }
        for output in &mut self.outputs.logged {
            self.outcome = self.outcome.and(output.finish());
        }
        if let lost @ 1.. = self.outputs.lost() {
            self.outcome = self.outcome.and_then(|()| (self.news)(News::LogLost(lost)));
        }
        self.outcome.map(|()| self.channels.others)
    }

    /// The descriptors to poll, with the outputs or without.
    fn sources(&self, with_outputs: bool) -> Vec<(Source, PollFd<'_>)> {
        let mut polled = Vec::new();
        if self.outcome.is_ok() {
            polled.extend(self.channels.last.as_fd().map(|fd| (Source::LastLink, at_end(fd))));
            let others = self.channels.others.as_fd();
            polled.extend(others.map(|fd| (Source::OtherLinks, readable(fd))));
            let payload = self.payload.as_ref().map(|fd| (Source::Payload, readable(fd.as_fd())));
            polled.extend(payload);
            let console = self.outputs.console.as_ref();
            polled.extend(console.map(|(fd, ..)| (Source::Console, readable(fd.as_fd()))));
        }
        let outputs = self.outputs.logged.iter().enumerate().filter(|_| with_outputs);
        polled.extend(outputs.filter_map(|(index, output)| {
            Some((Source::Output(index), readable(output.source.as_ref()?.as_fd())))
        }));
        polled
    }

    /// Handles the descriptors that are ready. The outputs come first, since a terminal that arrives now was not polled.
    /// After a failure the outputs are still read, so that the payload never waits for a reader.
    fn handle_ready(&mut self, sources: &[Source], ready: &[bool]) {
        let ready: Vec<Source> =
            sources.iter().zip(ready).filter(|(_, ready)| **ready).map(|(s, _)| *s).collect();
        let logged = self.copy_outputs(&ready);
        self.outcome = std::mem::replace(&mut self.outcome, Ok(())).and(logged);
        for source in ready {
            if self.outcome.is_ok() {
                self.outcome = self.handle_source(source);
            }
        }
    }

    fn handle_source(&mut self, source: Source) -> Result<()> {
        match source {
            Source::LastLink => {
                self.channels.last.read()?;
                self.channels.others.read()?;
                let Some(payload) = self.channels.last.payload() else { return Ok(()) };
                (self.news)(News::Started(payload, &self.channels.others))?;
                // `None`: the payload has ended, and the end of the chain follows.
                self.payload = payload.open()?;
            }
            Source::OtherLinks => self.channels.others.read()?,
            Source::Payload => {
                self.payload = None;
                (self.ended)()?;
            }
            Source::Console => {
                if let Some((console, path, log)) = self.outputs.console.take() {
                    self.outputs.logged.push(Output::new(console.receive(&path)?, log)?);
                }
            }
            Source::Output(_) => {}
        }
        Ok(())
    }

    /// Copies the outputs that are ready. Reports lost bytes once while the payload runs.
    fn copy_outputs(&mut self, ready: &[Source]) -> Result<()> {
        let lost_before = self.outputs.lost() > 0;
        let mut copied = Ok(());
        for (index, output) in self.outputs.logged.iter_mut().enumerate() {
            if ready.contains(&Source::Output(index)) {
                copied = copied.and(output.copy().map(drop));
            }
        }
        match self.outputs.lost() {
            bytes if bytes > 0 && !lost_before => copied.and((self.news)(News::LogLost(bytes))),
            _ => copied,
        }
    }
}

impl<F: FnMut(News<'_>) -> Result<()>, G: FnMut() -> Result<()>> Poller for Watch<F, G> {
    fn polled(&self) -> Vec<PollFd<'_>> {
        self.sources(true).into_iter().map(|(_, fd)| fd).collect()
    }

    fn handle(&mut self, ready: &[bool]) {
        let sources: Vec<Source> =
            self.sources(true).into_iter().map(|(source, _)| source).collect();
        self.handle_ready(&sources, ready);
    }
}
