//! The supervisor: the waiting jc-run, in the foreground or detached. The supervisor holds the lock of the state
//! directory, runs the chain, records its start and end, and removes what is not kept.

use std::cell::Cell;
use std::fs::File;
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;
use std::rc::Rc;

use jc_unshare::early_network::Sender;
use jc_unshare::process::Process;
use jc_unshare::program::Program;
use jc_unshare::supervise::{Child, Exit, NewChild};
use jc_unshare::{Context, Error, Result};
use nix::libc::{SIGKILL, STDERR_FILENO, STDIN_FILENO, STDOUT_FILENO};
use rustix::fs::{Mode, fchmod};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::stdio::{dup2_stdin, dup2_stdout};
use serde_json::{Value, json};

use super::base_path::BasePath;
use super::bundle::{Bundle, StatusFds, create_fifo};
use super::compose::network;
use super::console::Console;
use super::dir::LockedDir;
use super::events::Events;
use super::files::StateDir;
use super::log::Log;
use super::reports::Reports;
use super::state::{State, Status, boot_id, now};
use super::sweep::sweep_links;
use super::watch::{Channels, News, Outputs, Watch};
use crate::TOOL;

/// The standard streams of the payload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stdio {
    /// The streams of the caller, or a terminal that jc-rootfs passes.
    Callers,
    /// Pipes that the supervisor copies to log files, and an empty stdin.
    Logs,
    /// The same, with a FIFO as stdin.
    LogsAndFifo,
    /// A terminal, which the supervisor copies to a log file.
    LoggedTerminal,
}

/// A container with its state directory, before its start.
#[derive(Debug)]
pub struct Container {
    bundle: Bundle,
    directory: Rc<StateDir>,
    /// The lock on the state directory, until the directory is removed.
    locked: Option<LockedDir>,
    /// The lock on the volumes, so that jc-list does not sweep them.
    volumes: Option<OwnedFd>,
    events: Events,
}

impl Container {
    /// Creates the state directory with its files.
    pub fn create(base_path: &BasePath, bundle: Bundle, events: Events) -> Result<Self> {
        let locked = LockedDir::create(base_path, &bundle.state.id, bundle.name())?;
        let directory = Rc::clone(locked.directory());
        let mut container = Self { bundle, directory, locked: Some(locked), volumes: None, events };
        let created = container.bundle.create();
        container.volumes = container.or_remove(created)?;
        Ok(container)
    }

    /// Removes the container if a step before its start has failed.
    pub fn or_remove<T>(&mut self, step: Result<T>) -> Result<T> {
        step.or_else(|error| {
            self.remove()?;
            Err(error)
        })
    }

    /// A path in the state directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.bundle.path(name)
    }

    /// The ID of the container.
    pub fn id(&self) -> String {
        self.bundle.state.id.clone()
    }

    /// Runs the container to its end. `ready` is called when the payload has been executed.
    pub fn run(mut self, stdio: Stdio, ready: impl FnMut() -> Result<()>) -> Result<Exit> {
        let id = self.id();
        let outcome = self.supervise(stdio, ready);
        let has_begun = self.bundle.state.status == Status::Running;
        if let Ok((exit, reports)) = &outcome
            && has_begun
            && self.bundle.needs_exit_status
        {
            let end = record_end(&mut self.bundle.state, *exit, reports);
            self.events.report("exited", &id, end);
        }
        if has_begun && outcome.is_ok() && self.bundle.state.is_kept() {
            self.bundle.state.write(&self.directory)?;
        } else {
            self.remove()?;
            self.events.report("removed", &id, json!({}));
        }
        outcome.map(|(exit, _)| exit)
    }

    /// Removes the state directory, unless that has happened.
    fn remove(&mut self) -> Result<()> {
        self.locked.take().map_or(Ok(()), |locked| locked.remove_with_name(self.bundle.name()))
    }

    /// Starts the chain and waits for its end. Returns the events of the links too.
    fn supervise(
        &mut self,
        stdio: Stdio,
        mut ready: impl FnMut() -> Result<()>,
    ) -> Result<(Exit, Reports)> {
        let (outputs, pipes) = self.outputs(stdio)?;
        let (child, channels) = self.start(stdio, pipes)?;
        let Self { bundle, directory, locked, events, .. } = self;
        let (needs_exit_status, name) =
            (bundle.needs_exit_status, bundle.name().map(str::to_owned));
        let (state, is_unrecorded) = (&mut bundle.state, Cell::new(false));
        let news = |news: News<'_>| match news {
            News::Started(payload, reports) => record_start(state, payload, reports, directory)
                .and_then(|()| {
                    events.report("started", &state.id, json!({ "pid": payload.pid }));
                    ready()
                })
                .inspect_err(|_| {
                    is_unrecorded.set(true);
                    // A payload that is not recorded must not run on. The links end with it.
                    let _: Result<bool> = payload.signal(SIGKILL);
                }),
            News::LogLost(bytes) => {
                state.set("log-lost", bytes);
                // The disk may be full. The state is written again at the end.
                let _: Result<()> = state.write(directory);
                Ok(())
            }
        };
        // A state that nobody reads is removed while the links remove their objects.
        let ended = || match locked.take_if(|_| !needs_exit_status) {
            Some(locked) => locked.remove_with_name(name.as_deref()),
            None => Ok(()),
        };
        let mut watch = Watch::new(channels, outputs, news, ended);
        // Killed links leave their objects.
        let exit = child.wait_polling(&mut watch).inspect_err(|_| drop(sweep_links()));
        match watch.finish() {
            Err(error) if is_unrecorded.get() => Err(unless_reported(error, &exit)),
            reports => reports.and_then(|reports| Ok((exit?, reports))),
        }
    }

    /// Starts the chain, and records the container while the chain starts.
    fn start(&mut self, stdio: Stdio, pipes: Vec<OwnedFd>) -> Result<(Child, Channels)> {
        // An absent link is a failure of this program (125), and no absent payload (127).
        let mut chain = Program::new(&self.bundle.chain.argv())?.required();
        self.redirect(stdio, pipes, &mut chain)?;
        let channels = self.channels(&mut chain)?;
        let network = self.network(&mut chain)?;
        let child = NewChild::of(TOOL).spawn_program(chain)?;
        let sent = network.as_ref().map_or(Ok(()), Sender::send_new);
        match sent.and_then(|()| self.record_creation()) {
            Ok(()) => Ok((child, channels)),
            Err(error) => {
                child.send(SIGKILL)?;
                let ended = child.end();
                sweep_links();
                Err(unless_reported(error, &ended))
            }
        }
    }

    /// Creates the pipes for the events of links. The chain inherits the write ends.
    fn channels(&self, chain: &mut Program) -> Result<Channels> {
        let ((last, to_last), (others, to_others)) = (Reports::pipe()?, Reports::pipe()?);
        let StatusFds { last: last_number, others: others_number } = self.bundle.status_fds;
        chain.inherit(to_last, last_number as RawFd);
        chain.inherit(to_others, others_number as RawFd);
        Ok(Channels { last, others })
    }

    /// Makes the socket by which a link gets its network namespace. The chain inherits the other end.
    fn network(&self, chain: &mut Program) -> Result<Option<Sender>> {
        let Some(number) = self.bundle.net_fd else { return Ok(None) };
        let (sender, receiver) = Sender::new()?;
        chain.inherit(receiver, number as RawFd);
        Ok(Some(sender))
    }

    /// Records the container, and closes stdin and stdout in this process, so that a reader of the payload's output sees
    /// its end when the payload closes it.
    fn record_creation(&mut self) -> Result<()> {
        let state = &mut self.bundle.state;
        state.set("supervisor", Process::this()?);
        state.set("boot", boot_id()?);
        state.write(&self.directory)?;
        self.events.report("created", &state.id, json!({}));
        let null =
            File::options().read(true).write(true).open("/dev/null").on("open", "/dev/null")?;
        dup2_stdin(&null).and_then(|()| dup2_stdout(&null)).op("dup2")
    }

    fn log(&self, name: &str) -> Result<Log> {
        Log::create(&self.bundle.state.bundle, name, self.bundle.log_size)
    }

    /// The outputs of a detached payload, and the pipes that the chain writes to: stderr, and unless the payload
    /// has a terminal, stdout.
    fn outputs(&self, stdio: Stdio) -> Result<(Outputs, Vec<OwnedFd>)> {
        let names: &[&str] = match stdio {
            Stdio::Callers => return Ok((Outputs::default(), Vec::new())),
            Stdio::LoggedTerminal => &["stderr"],
            Stdio::Logs | Stdio::LogsAndFifo => &["stderr", "stdout"],
        };
        let (mut read, mut written) = (Vec::new(), Vec::new());
        for name in names {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).op("pipe")?;
            // A payload without root may open /dev/stdout, which leads to the pipe.
            fchmod(&writer, Mode::WUSR | Mode::WGRP | Mode::WOTH).op("chmod pipe")?;
            read.push((reader, self.log(name)?));
            written.push(writer);
        }
        let console = match stdio {
            Stdio::LoggedTerminal => {
                let path = self.path("console");
                Some((Console::listen(&path)?, path, self.log("stdout")?))
            }
            _ => None,
        };
        Ok((Outputs::new(read, console)?, written))
    }

    /// Lets the chain inherit stdin, stdout and stderr of the payload. The pipes end when no process of the container has
    /// them open.
    fn redirect(&self, stdio: Stdio, pipes: Vec<OwnedFd>, chain: &mut Program) -> Result<()> {
        let mut pipes = pipes.into_iter();
        let Some(stderr) = pipes.next() else { return Ok(()) };
        let stdin = match stdio {
            Stdio::LogsAndFifo => self.path("stdin"),
            _ => "/dev/null".into(),
        };
        if stdio == Stdio::LogsAndFifo {
            create_fifo(&stdin)?;
        }
        // This process opens the FIFO for writing too, so that it never ends.
        let stdin = File::options().read(true).write(true).open(&stdin).on("open", &stdin)?;
        let stdout = match pipes.next() {
            Some(pipe) => pipe,
            None => stdin.try_clone().op("dup stdin")?.into(),
        };
        chain.inherit(stdin.into(), STDIN_FILENO);
        chain.inherit(stdout, STDOUT_FILENO);
        chain.inherit(stderr, STDERR_FILENO);
        Ok(())
    }
}

/// The error of a start, or a quiet error if a link has reported one already.
fn unless_reported(error: Error, chain: &Result<Exit>) -> Error {
    if matches!(chain, Ok(Exit::Code(125))) { Error::quiet() } else { error }
}

/// Records that the payload runs.
fn record_start(
    state: &mut State,
    payload: Process,
    reports: &Reports,
    directory: &StateDir,
) -> Result<()> {
    state.status = Status::Running;
    state.pid = Some(payload.pid);
    state.set("process", payload);
    state.set("started", now());
    let links = ["jc-net", "jc-egress"];
    let network = links.iter().find_map(|link| reports.find("network", Some(link)));
    let network = network.unwrap_or_default();
    let (addresses, ports) = network::summary(&network);
    for (key, value) in [("addresses", addresses), ("ports", ports)] {
        if !value.is_empty() {
            state.set(key, value);
        }
    }
    state.write(directory)
}

/// Records the end of the payload. Returns the members of the event.
fn record_end(state: &mut State, exit: Exit, reports: &Reports) -> Value {
    let code = exit.code();
    // The link next to the payload ends first, and reports a signal that others see as an exit code.
    let signal = reports.find("exited", None).and_then(|end| end["signal"].as_u64());
    let usage = reports.find("usage", Some("jc-cgroup"));
    let oom = usage.and_then(|usage| Some(usage["oom_kills"].as_u64()? > 0));
    (state.status, state.pid) = (Status::Stopped, None);
    state.annotations.remove("jc.process");
    state.set("finished", now());
    state.set("exit-code", code);
    if let Some(signal) = signal {
        state.set("signal", signal);
    }
    if let Some(oom) = oom {
        state.set("oom", oom);
    }
    json!({ "code": code, "signal": signal, "oom": oom.unwrap_or(false) })
}
