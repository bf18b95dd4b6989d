//! The start of a chain, and the events of its links (jc(7)).

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use jc_unshare::early_network::Sender;
use jc_unshare::process::Process;
use jc_unshare::program::Variable;
use jc_unshare::{Absent, Context, Error, Kind, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::io::{DupFlags, Errno, FdFlags, dup3, fcntl_dupfd_cloexec, fcntl_setfd, read};
use rustix::pipe::{PipeFlags, pipe_with};
use serde_json::Value;

use super::compile::Descriptors;
use super::config::Linux;
use super::state::{Container, EVENTS, GATE};
use crate::link::Chain;

/// The most bytes of events.
const MOST: usize = 1 << 20;

/// The longest time between two events of a chain that runs no hooks.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The events of a chain.
#[derive(Debug)]
pub struct Events {
    reader: OwnedFd,
    text: Vec<u8>,
    /// The length of the text that has been returned.
    seen: usize,
}

impl Events {
    /// Opens the FIFO of a container.
    pub fn open(container: &Container) -> Result<Self> {
        let path = container.path(EVENTS);
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let reader = rustix::fs::open(&path, flags, Mode::empty()).on("open", &path)?;
        Ok(Self::of(reader))
    }

    /// Waits until no link of the chain of a container is left. Each has the FIFO open.
    pub fn wait_for_end(container: &Container, patience: Duration) -> Result<()> {
        let Some(mut events) = Self::open(container).absent()? else { return Ok(()) };
        let deadline = Instant::now() + patience;
        // poll(2) waits for the first writer of a FIFO, and read(2) does not.
        if events.read_at_once()? == Some(false) {
            return Ok(());
        }
        while events.read(Some(deadline))? {}
        Ok(())
    }

    fn of(reader: OwnedFd) -> Self {
        Self { reader, text: Vec::new(), seen: 0 }
    }

    /// The next event; `None` at the end, when no link has the descriptor. Text that is no event counts for nothing.
    pub fn next(&mut self, patience: Option<Duration>) -> Result<Option<Value>> {
        let deadline = patience.map(|patience| Instant::now() + patience);
        loop {
            while let Some(end) = self.text[self.seen..].iter().position(|b| *b == b'\n') {
                let line = &self.text[self.seen..self.seen + end];
                let event = serde_json::from_slice(line);
                self.seen += end + 1;
                if let Ok(event) = event {
                    return Ok(Some(event));
                }
            }
            if !self.read(deadline)? {
                return Ok(None);
            }
        }
    }

    /// Reads more. `false` at the end.
    fn read(&mut self, deadline: Option<Instant>) -> Result<bool> {
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            let time = left.map(|left| Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: left.subsec_nanos().into(),
            });
            let mut fds = [PollFd::new(&self.reader, PollFlags::IN)];
            match poll(&mut fds, time.as_ref()) {
                Ok(0) => return Err(Error::new("the chain has not written an event in time")),
                Err(Errno::INTR) => continue,
                ready => ready.op("poll")?,
            };
            if let Some(is_more) = self.read_at_once()? {
                return Ok(is_more);
            }
        }
    }

    /// Reads what is there. `None`: nothing yet.
    fn read_at_once(&mut self) -> Result<Option<bool>> {
        let mut chunk = [0; 4096];
        match read(&self.reader, &mut chunk) {
            Ok(0) => Ok(Some(false)),
            Ok(count) if self.text.len() + count > MOST => {
                Err(Error::new("the chain has written too many events"))
            }
            Ok(count) => {
                self.text.extend(&chunk[..count]);
                Ok(Some(true))
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error).op("read events"),
        }
    }

    /// Waits for an event of that name that `is_it` accepts. The failure of a link is an error.
    pub fn expect(
        &mut self,
        patience: Option<Duration>,
        program: &str,
        is_it: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        loop {
            match self.next(patience)? {
                Some(event) if is_it(&event) => return Ok(event),
                Some(event) => failure(&event, program).map_or(Ok(()), Err)?,
                None => return Err(ended()),
            }
        }
    }

    /// Waits for the execution of the program: the end of the events, without a failure.
    pub fn expect_end(&mut self, program: &str) -> Result<()> {
        while let Some(event) = self.next(None)? {
            failure(&event, program).map_or(Ok(()), Err)?;
        }
        Ok(())
    }
}

/// The process of a chain, which an event names and which waits or has just begun the program. Its start time in the
/// event is that of its own clock: a time namespace shifts the times of /proc/PID/stat (time_namespaces(7)).
pub fn process(event: &Value, linux: &Linux) -> Result<Process> {
    let number = |key: &str| event[key].as_u64();
    let pid = number("pid").and_then(|pid| pid.try_into().ok());
    let found = pid.zip(number("start-time")).map(|(pid, start)| Process { pid, start });
    let found = found.ok_or_else(|| Error::new("the chain has reported no process"))?;
    if linux.namespaces.iter().any(|namespace| namespace.kind == "time") {
        Process::numbered(found.pid)
    } else {
        Ok(found)
    }
}

/// The error of an event that reports one, in the words of runc about a program, which engines look for.
fn failure(event: &Value, program: &str) -> Option<Error> {
    let text = event["error"].as_str().unwrap_or("unknown error");
    let cause = || text.rsplit(": ").next().unwrap_or(text).to_lowercase();
    let kind = match (event["event"].as_str()?, event["code"].as_u64()) {
        ("exec-failed", Some(127)) => Kind::NotFound,
        ("exec-failed", Some(126)) => Kind::NotExecutable,
        ("exec-failed" | "failed", _) => return Some(Error::new(text)),
        _ => return None,
    };
    let text = match kind {
        Kind::NotFound if !program.contains('/') => "executable file not found in $PATH".to_owned(),
        _ => cause(),
    };
    Some(Error::with_kind(kind, format_args!("exec: {program:?}: {text}")))
}

/// A chain that runs.
#[derive(Debug)]
pub struct Running {
    /// The first link, which ends when the program has a process.
    pub child: Child,
    pub events: Events,
    /// The gate before the first link, until it is open.
    scope: Option<OwnedFd>,
    /// The gate before the change of the root, or the only one before the program.
    gate: Option<OwnedFd>,
    /// The socket by which jc-rootfs gets a network namespace, until it has that.
    network: Option<Sender>,
}

impl Running {
    /// Closes the gates and the socket, which ends the chain.
    pub fn close_gates(&mut self) {
        (self.scope, self.gate, self.network) = (None, None, None);
    }

    /// Opens the gate before the first link.
    pub fn open_scope(&mut self) -> Result<()> {
        open_gate(self.scope.take())
    }

    /// Creates the network namespace for which the chain waits, if it waits for one.
    pub fn send_network(&mut self) -> Result<()> {
        self.network.as_ref().map_or(Ok(()), Sender::send_new)
    }

    /// Opens the gate after the mounts, or the only one before the program.
    pub fn open_gate(&mut self) -> Result<()> {
        open_gate(self.gate.take())
    }
}

fn open_gate(gate: Option<OwnedFd>) -> Result<()> {
    match gate.map(File::from).map_or(Ok(()), |mut gate| gate.write_all(b"!")) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ended()),
        opened => opened.op("open the gate"),
    }
}

/// The error of a chain of which no link is left.
fn ended() -> Error {
    Error::new("the chain has ended before the program")
}

/// The descriptors that a chain inherits, which exist before the chain because their numbers are part of it.
#[derive(Debug)]
pub struct Inherited {
    events: OwnedFd,
    /// The gates before the change of the root, before the program, and before the first link.
    mounts: Option<OwnedFd>,
    exec: Option<OwnedFd>,
    scope: Option<OwnedFd>,
    /// The socket from which jc-rootfs gets a network namespace.
    network: Option<OwnedFd>,
    /// The other ends of the pipes.
    reader: Option<OwnedFd>,
    opener: Option<OwnedFd>,
    scope_opener: Option<OwnedFd>,
    sender: Option<Sender>,
}

impl Inherited {
    /// A pipe for events, and no gate. The numbers are above those that the program gets.
    pub fn pipe(preserved: u32) -> Result<Self> {
        let (reader, writer) = new_pipe()?;
        let events = above(&writer, preserved)?;
        Ok(Self { reader: Some(reader), ..Self::of(events) })
    }

    /// A number for events alone.
    fn of(events: OwnedFd) -> Self {
        Self {
            events,
            mounts: None,
            exec: None,
            scope: None,
            network: None,
            reader: None,
            opener: None,
            scope_opener: None,
            sender: None,
        }
    }

    /// The gates of a container, and a number for its events. If `stops`, `start` opens the gate before the program, which
    /// is a FIFO, and this process the one before the change of the root. If `waits`, a gate is before the first link.
    pub fn gates(preserved: u32, stops: bool, waits: bool) -> Result<Self> {
        let (gate, opener) = new_pipe()?;
        // FIFOs replace the first, and if it stops the third.
        let events = above(&gate, preserved)?;
        let mounts = stops.then(|| above(&gate, preserved)).transpose()?;
        let exec = above(&gate, preserved)?;
        let scope = waits.then(new_pipe).transpose()?;
        let scope = scope.map(|(gate, opener)| above(&gate, preserved).map(|gate| (gate, opener)));
        let (scope, scope_opener) = scope.transpose()?.unzip();
        let (exec, opener) = (Some(exec), Some(opener));
        Ok(Self { mounts, exec, scope, opener, scope_opener, ..Self::of(events) })
    }

    /// Adds a socket by which this program sends a network namespace.
    pub fn with_network(mut self, preserved: u32) -> Result<Self> {
        let (sender, receiver) = Sender::new()?;
        (self.network, self.sender) = (Some(above(&receiver, preserved)?), Some(sender));
        Ok(self)
    }

    /// Returns the numbers that options of the links name.
    pub fn numbers(&self) -> Descriptors {
        let number = |fd: &OwnedFd| fd.as_raw_fd() as u32;
        Descriptors {
            events: number(&self.events),
            mounts: self.mounts.as_ref().map(number),
            exec: self.exec.as_ref().map_or(0, number),
            scope: self.scope.as_ref().map_or(0, number),
            network: self.network.as_ref().map(number),
        }
    }

    /// Makes and opens the FIFOs of a container, and gives the reader of events.
    fn open_fifos(&mut self, container: &Container) -> Result<Events> {
        let make = |name| {
            let path = container.path(name);
            mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).on("mkfifo", &path)?;
            Ok(path)
        };
        let path = make(EVENTS)?;
        // A FIFO is opened for writing when it has a reader.
        let reader = Events::open(container)?;
        // A FIFO without a writer is at its end, and one without a reader is broken.
        dup3(open_fifo(&path)?, &mut self.events, DupFlags::CLOEXEC).op("dup3")?;
        if let (Some(_), Some(exec)) = (&self.mounts, &mut self.exec) {
            dup3(open_fifo(&make(GATE)?)?, exec, DupFlags::CLOEXEC).op("dup3")?;
        }
        Ok(reader)
    }

    fn all(&self) -> impl Iterator<Item = &OwnedFd> {
        let gates = self.mounts.iter().chain(&self.exec).chain(&self.scope);
        [&self.events].into_iter().chain(gates).chain(&self.network)
    }
}

fn new_pipe() -> Result<(OwnedFd, OwnedFd)> {
    pipe_with(PipeFlags::CLOEXEC).op("pipe")
}

/// A copy of a descriptor with a number above those that the program gets.
fn above(fd: &OwnedFd, preserved: u32) -> Result<OwnedFd> {
    fcntl_dupfd_cloexec(fd, 3 + preserved as i32).op("F_DUPFD")
}

/// Starts a chain. The events and a gate of a container go through FIFOs, which the command `start` opens too.
pub fn start(
    container: Option<&Container>,
    mut inherited: Inherited,
    chain: &Chain,
    variables: &[Variable],
) -> Result<Running> {
    let events = match (container, inherited.reader.take()) {
        (Some(container), _) => inherited.open_fifos(container)?,
        (None, Some(reader)) => Events::of(reader),
        (None, None) => return Err(Error::new("a chain without events")),
    };
    for fd in inherited.all() {
        fcntl_setfd(fd, FdFlags::empty()).op("F_SETFD")?;
    }
    let child = spawn(&chain.argv(), variables)?;
    let Inherited { scope_opener: scope, opener: gate, sender: network, .. } = inherited;
    Ok(Running { child, events, scope, gate, network })
}

fn open_fifo(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).on("open", path)
}

fn spawn(argv: &[OsString], variables: &[Variable]) -> Result<Child> {
    let (program, arguments) = argv.split_first().ok_or_else(|| Error::new("an empty chain"))?;
    let mut command = Command::new(program);
    command.args(arguments);
    for (name, value) in variables {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.spawn().on("exec", OsStr::new(program))
}
