//! The supervisor: the waiting jc-run, in the foreground or detached. It holds the state dir's lock,
//! runs the chain, records what becomes of it, and leaves nothing that is not to be kept.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use jc_unshare::process::Process;
use jc_unshare::supervise::{Exit, spawn_program};
use jc_unshare::{Context, Error, Kind, Result, exec, sys};
use rustix::fs::OFlags;
use rustix::io::{FdFlags, dup2, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use serde_json::{Value, json};

use crate::TOOL;
use crate::console::Console;
use crate::dir::Held;
use crate::events::Events;
use crate::files::StateDir;
use crate::list::sweep_links;
use crate::network;
use crate::place::Place;
use crate::plan::{EXIT, NETWORK, Plan, STARTED, make_fifo};
use crate::state::{State, Status, boot_id, now};
use crate::watch::{Terminal, Watch};

/// What the payload reads and writes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stdio {
    /// What the caller does, or a terminal that is handed over.
    Callers,
    /// Its log files are written, and nothing is read.
    Logs,
    /// The same, but a FIFO that stays open is read.
    LogsAndFifo,
    /// A terminal of its own, and its log is written.
    LoggedTerminal,
}

/// A container with its state dir, before it runs.
#[derive(Debug)]
pub struct Container {
    plan: Plan,
    directory: Rc<StateDir>,
    /// Its state dir, until that is removed.
    held: Option<Held>,
    events: Events,
}

impl Container {
    /// Makes the state dir and all in it.
    pub fn make(place: &Place, plan: Plan, events: Events) -> Result<Self> {
        let held = Held::make(place, &plan.state.id, plan.name())?;
        let directory = Rc::clone(held.directory());
        let mut container = Self { plan, directory, held: Some(held), events };
        match container.plan.prepare() {
            Ok(()) => Ok(container),
            Err(error) => {
                container.remove()?;
                Err(error)
            }
        }
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
        if let Ok(exit) = &outcome
            && has_begun
            && self.plan.is_told
        {
            let end = self.note_end(*exit);
            self.events.tell("exited", &id, end);
        }
        if has_begun && outcome.is_ok() && self.plan.state.is_kept() {
            self.plan.state.write(&self.directory)?;
            remove_if_there(&self.path(STARTED))?;
        } else {
            self.remove()?;
            self.events.tell("removed", &id, json!({}));
        }
        outcome
    }

    /// Removes the state dir, if that has not been done yet.
    fn remove(&mut self) -> Result<()> {
        self.held.take().map_or(Ok(()), |held| held.remove_called(self.plan.name()))
    }

    fn supervise(&mut self, stdio: Stdio, mut ready: impl FnMut() -> Result<()>) -> Result<Exit> {
        let path = self.plan.path(STARTED);
        let flags = OFlags::NONBLOCK.bits() as i32;
        let fifo = File::options().read(true).custom_flags(flags).open(&path).on("open", &path)?;
        let terminal = match stdio {
            Stdio::LoggedTerminal => {
                let path = self.path("console");
                Terminal::Awaited(Console::listen(&path)?, path, self.log("stdout")?)
            }
            _ => Terminal::None,
        };
        let child = spawn_program(TOOL, 0, None, |_| match self.redirect(stdio) {
            // The payload was not even looked for yet.
            Ok(()) => Error::with_kind(Kind::Failed, exec::exec(&self.plan.chain.argv())),
            Err(error) => error,
        })?;
        // While the chain starts.
        if let Err(error) = self.settle() {
            // What came first is the one to tell.
            let _: Result<()> = child.kill();
            sweep_links();
            return Err(error);
        }
        let Self { plan, directory, held, events } = self;
        let (is_told, name) = (plan.is_told, plan.name().map(str::to_owned));
        let state = &mut plan.state;
        let started = |payload| {
            begin(state, payload, directory)?;
            events.tell("started", &state.id, json!({ "pid": payload.pid }));
            ready()
        };
        // If nothing is kept and nobody is told, what is recorded goes while the links undo theirs.
        let ended = || match held.take_if(|_| !is_told) {
            Some(held) => held.remove_called(name.as_deref()),
            None => Ok(()),
        };
        let mut watch = Watch::new(fifo, terminal, started, ended);
        let exit = child.wait_beside(&mut watch);
        watch.finish().and(exit)
    }

    /// Records the container, and lets go of what is the payload's: whoever reads what that writes is to
    /// see it closed when the payload closes it.
    fn settle(&mut self) -> Result<()> {
        self.plan.write_exec()?;
        let state = &mut self.plan.state;
        state.set("supervisor", Process::this()?);
        state.set("boot", boot_id()?);
        state.write(&self.directory)?;
        self.events.tell("created", &state.id, json!({}));
        let null =
            File::options().read(true).write(true).open("/dev/null").on("open", "/dev/null")?;
        dup2_stdin(&null).and_then(|()| dup2_stdout(&null)).op("dup2")
    }

    fn log(&self, name: &str) -> Result<File> {
        let path = self.path(name);
        File::options().append(true).create(true).mode(0o600).open(&path).on("open", &path)
    }

    /// Gives this process, which is to become the chain, the payload's stdin, stdout and stderr, and
    /// the files that links write.
    fn redirect(&self, stdio: Stdio) -> Result<()> {
        for (number, name) in &self.plan.handed {
            hand_down(&self.path(name), *number)?;
        }
        if stdio == Stdio::Callers {
            return Ok(());
        }
        let stdin = match stdio {
            Stdio::LogsAndFifo => self.path("stdin"),
            _ => "/dev/null".into(),
        };
        if stdio == Stdio::LogsAndFifo {
            make_fifo(&stdin)?;
        }
        // For writing too, so that a FIFO never ends.
        let stdin = File::options().read(true).write(true).open(&stdin).on("open", &stdin)?;
        dup2_stdin(stdin).op("dup2")?;
        dup2_stdout(self.log("stdout")?).op("dup2")?;
        dup2_stderr(self.log("stderr")?).op("dup2")
    }

    /// Notes how it ended, and says that as an event does.
    fn note_end(&mut self, exit: Exit) -> Value {
        let code = exit.code();
        // A bill can go to what is no file, where there is nothing to read, or nobody who writes.
        let told = |path: &Path| {
            fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
            serde_json::from_slice::<Value>(&fs::read(path).ok()?).ok()
        };
        let signal = match told(&self.path(EXIT)) {
            Some(end) => end.get("signal").and_then(Value::as_u64),
            // Where no jc-unshare waits there is only the code; above 128 it stands for a signal.
            None => code.checked_sub(128).filter(|n| (1..=64).contains(n)).map(u64::from),
        };
        let oom = self
            .plan
            .bill
            .as_deref()
            .and_then(|bill| Some(told(bill)?.get("oom_kills")?.as_u64()? > 0));
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

/// Opens a file as this descriptor, for the programs that this process becomes.
fn hand_down(path: &Path, number: u32) -> Result<()> {
    let file = File::options().append(true).create(true).mode(0o600).open(path).on("open", path)?;
    // It may itself have the number. The exec closes it if not.
    let file = ManuallyDrop::new(file);
    // The lowest that is free from there on. If that is another one, this is open, and whose it was
    // execs in a moment.
    let copy = ManuallyDrop::new(fcntl_dupfd_cloexec(&*file, number as RawFd).op("F_DUPFD")?);
    if copy.as_raw_fd() as u32 == number {
        return fcntl_setfd(&*copy, FdFlags::empty()).op("F_SETFD");
    }
    let mut place = ManuallyDrop::new(sys::take_fd(number).on("take descriptor for", path)?);
    dup2(&*copy, &mut place).op("dup2")
}

/// Notes that the payload runs.
fn begin(state: &mut State, payload: Process, directory: &StateDir) -> Result<()> {
    state.status = Status::Running;
    state.pid = Some(payload.pid);
    state.set("process", payload);
    state.set("started", now());
    let (addresses, ports) = network::told(&state.bundle.join(NETWORK)).unwrap_or_default();
    for (key, value) in [("addresses", addresses), ("ports", ports)] {
        if !value.is_empty() {
            state.set(key, value);
        }
    }
    state.write(directory)
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.on("remove", path),
    }
}
