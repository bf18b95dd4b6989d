//! The supervisor: the waiting jc-run, in the foreground or detached. It holds the state dir's lock,
//! runs the chain, records what becomes of it, and leaves nothing that is not to be kept.

use std::cell::Cell;
use std::fs::File;
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;
use std::rc::Rc;

use jc_unshare::process::Process;
use jc_unshare::program::Program;
use jc_unshare::supervise::{Exit, spawn_program};
use jc_unshare::{Context, Error, Result};
use nix::libc::{SIGKILL, STDERR_FILENO, STDIN_FILENO, STDOUT_FILENO};
use rustix::fs::{Mode, fchmod};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::stdio::{dup2_stdin, dup2_stdout};
use serde_json::{Value, json};

use crate::TOOL;
use crate::console::Console;
use crate::dir::Held;
use crate::events::Events;
use crate::files::StateDir;
use crate::list::sweep_links;
use crate::log::Log;
use crate::network;
use crate::place::Place;
use crate::plan::{Plan, StatusFds, make_fifo};
use crate::reports::Reports;
use crate::state::{State, Status, boot_id, now};
use crate::watch::{Channels, News, Outputs, Watch};

/// What the payload reads and writes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stdio {
    /// What the caller does, or a terminal that is handed over.
    Callers,
    /// Pipes that the supervisor copies to log files, and nothing to read.
    Logs,
    /// The same, but a FIFO that stays open is read.
    LogsAndFifo,
    /// A terminal of its own, which the supervisor copies to a log file.
    LoggedTerminal,
}

/// A container with its state dir, before it runs.
#[derive(Debug)]
pub struct Container {
    plan: Plan,
    directory: Rc<StateDir>,
    /// Its state dir, until that is removed.
    held: Option<Held>,
    /// The lock on its volumes, which jc-list does not sweep meanwhile.
    volumes: Option<OwnedFd>,
    events: Events,
}

impl Container {
    /// Makes the state dir and all in it.
    pub fn make(place: &Place, plan: Plan, events: Events) -> Result<Self> {
        let held = Held::make(place, &plan.state.id, plan.name())?;
        let directory = Rc::clone(held.directory());
        let held = Some(held);
        let mut container = Self { plan, directory, held, volumes: None, events };
        let prepared = container.plan.prepare();
        container.volumes = container.or_remove(prepared)?;
        Ok(container)
    }

    /// Removes the container if a step before its start has failed.
    pub fn or_remove<T>(&mut self, step: Result<T>) -> Result<T> {
        step.or_else(|error| {
            self.remove()?;
            Err(error)
        })
    }

    /// Its state dir's path of that name.
    pub fn path(&self, name: &str) -> PathBuf {
        self.plan.path(name)
    }

    /// Its ID.
    pub fn id(&self) -> String {
        self.plan.state.id.clone()
    }

    /// Runs it to its end. `ready` is called when the payload has been executed.
    pub fn run(mut self, stdio: Stdio, ready: impl FnMut() -> Result<()>) -> Result<Exit> {
        let id = self.id();
        let outcome = self.supervise(stdio, ready);
        let has_begun = self.plan.state.status == Status::Running;
        if let Ok((exit, reports)) = &outcome
            && has_begun
            && self.plan.is_told
        {
            let end = self.note_end(*exit, reports);
            self.events.report("exited", &id, end);
        }
        if has_begun && outcome.is_ok() && self.plan.state.is_kept() {
            self.plan.state.write(&self.directory)?;
        } else {
            self.remove()?;
            self.events.report("removed", &id, json!({}));
        }
        outcome.map(|(exit, _)| exit)
    }

    /// Removes the state dir, if that has not been done yet.
    fn remove(&mut self) -> Result<()> {
        self.held.take().map_or(Ok(()), |held| held.remove_called(self.plan.name()))
    }

    /// Starts the chain and waits for its end. Gives the events that links reported.
    fn supervise(
        &mut self,
        stdio: Stdio,
        mut ready: impl FnMut() -> Result<()>,
    ) -> Result<(Exit, Reports)> {
        let (outputs, pipes) = self.outputs(stdio)?;
        // The chain belongs to this tool: the payload is not even looked for yet.
        let mut chain = Program::new(&self.plan.chain.argv())?.required();
        self.redirect(stdio, pipes, &mut chain)?;
        let channels = self.channels(&mut chain)?;
        let child = spawn_program(TOOL, 0, None, chain)?;
        // While the chain starts.
        if let Err(error) = self.settle() {
            child.send(SIGKILL)?;
            let ended = child.end();
            sweep_links();
            return Err(unless_reported(error, &ended));
        }
        let Self { plan, directory, held, events, .. } = self;
        let (is_told, name) = (plan.is_told, plan.name().map(str::to_owned));
        let (state, is_unknown) = (&mut plan.state, Cell::new(false));
        let news = |news: News<'_>| match news {
            News::Started(payload, reports) => begin(state, payload, reports, directory)
                .and_then(|()| {
                    events.report("started", &state.id, json!({ "pid": payload.pid }));
                    ready()
                })
                .inspect_err(|_| {
                    is_unknown.set(true);
                    // A payload that is not recorded must not run on. The links undo theirs at its end.
                    let _: Result<bool> = payload.signal(SIGKILL);
                }),
            News::LogLost(bytes) => {
                state.set("log-lost", bytes);
                // The disk that has no room for the log may have none for this: the end writes it again.
                let _: Result<()> = state.write(directory);
                Ok(())
            }
        };
        // If nothing is kept and nobody is told, what is recorded goes while the links undo theirs.
        let ended = || match held.take_if(|_| !is_told) {
            Some(held) => held.remove_called(name.as_deref()),
            None => Ok(()),
        };
        let mut watch = Watch::new(channels, outputs, news, ended);
        // Links that are killed undo nothing.
        let exit = child.wait_beside(&mut watch).inspect_err(|_| sweep_links());
        match watch.finish() {
            Err(error) if is_unknown.get() => Err(unless_reported(error, &exit)),
            reports => reports.and_then(|reports| Ok((exit?, reports))),
        }
    }

    /// Makes the pipes by which links report, and gives the chain the ends to write to.
    fn channels(&self, chain: &mut Program) -> Result<Channels> {
        let ((last, to_last), (others, to_others)) = (Reports::pipe()?, Reports::pipe()?);
        let StatusFds { last: last_number, others: others_number } = self.plan.status_fds;
        chain.inherit(to_last, last_number as RawFd);
        chain.inherit(to_others, others_number as RawFd);
        Ok(Channels { last, others })
    }

    /// Records the container, and closes the payload's stdin and stdout here: who reads the payload's
    /// output sees it closed when the payload closes it.
    fn settle(&mut self) -> Result<()> {
        self.plan.write_exec()?;
        let state = &mut self.plan.state;
        state.set("supervisor", Process::this()?);
        state.set("boot", boot_id()?);
        state.write(&self.directory)?;
        self.events.report("created", &state.id, json!({}));
        let null =
            File::options().read(true).write(true).open("/dev/null").on("open", "/dev/null")?;
        dup2_stdin(&null).and_then(|()| dup2_stdout(&null)).op("dup2")
    }

    fn log(&self, name: &str) -> Result<Log> {
        Log::create(&self.plan.state.bundle, name, self.plan.log_size)
    }

    /// What the supervisor reads of a detached payload, and the pipes that the chain writes to: stderr,
    /// and unless the payload has a terminal, stdout.
    fn outputs(&self, stdio: Stdio) -> Result<(Outputs, Vec<OwnedFd>)> {
        let names: &[&str] = match stdio {
            Stdio::Callers => return Ok((Outputs::default(), Vec::new())),
            Stdio::LoggedTerminal => &["stderr"],
            Stdio::Logs | Stdio::LogsAndFifo => &["stderr", "stdout"],
        };
        let (mut read, mut written) = (Vec::new(), Vec::new());
        for name in names {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).op("pipe")?;
            // To open /dev/stdout, which names the pipe, the payload needs to be no root.
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

    /// Gives the chain the payload's stdin, stdout and stderr. The pipes then end when nobody in the
    /// container holds them any more.
    fn redirect(&self, stdio: Stdio, pipes: Vec<OwnedFd>, chain: &mut Program) -> Result<()> {
        let mut pipes = pipes.into_iter();
        let Some(stderr) = pipes.next() else { return Ok(()) };
        let stdin = match stdio {
            Stdio::LogsAndFifo => self.path("stdin"),
            _ => "/dev/null".into(),
        };
        if stdio == Stdio::LogsAndFifo {
            make_fifo(&stdin)?;
        }
        // For writing too, so that a FIFO never ends.
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

    /// Records how the payload ended, and gives the members of the event.
    fn note_end(&mut self, exit: Exit, reports: &Reports) -> Value {
        let code = exit.code();
        // The link that is nearest to the payload ends first, and reports a signal that others see as a code.
        let signal = reports.find("exited", None).and_then(|end| end["signal"].as_u64());
        let usage = reports.find("usage", Some("jc-cgroup"));
        let oom = usage.and_then(|usage| Some(usage["oom_kills"].as_u64()? > 0));
        let state = &mut self.plan.state;
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
}

/// An error that ended a start, unless a link has failed as well: on a full disk one line is enough.
fn unless_reported(error: Error, chain: &Result<Exit>) -> Error {
    if matches!(chain, Ok(Exit::Code(125))) { Error::quiet() } else { error }
}

/// Records that the payload runs.
fn begin(
    state: &mut State,
    payload: Process,
    reports: &Reports,
    directory: &StateDir,
) -> Result<()> {
    state.status = Status::Running;
    state.pid = Some(payload.pid);
    state.set("process", payload);
    state.set("started", now());
    let network = reports.find("network", Some("jc-net")).unwrap_or_default();
    let (addresses, ports) = network::summary(&network);
    for (key, value) in [("addresses", addresses), ("ports", ports)] {
        if !value.is_empty() {
            state.set(key, value);
        }
    }
    state.write(directory)
}
