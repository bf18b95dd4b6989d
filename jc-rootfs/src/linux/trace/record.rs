//! The waiting link: starts the program or the chain, and writes the report at its end.

use std::env::consts::ARCH;
use std::ffi::OsString;
use std::io::{PipeReader, Write, pipe};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use jc_unshare::exec::exec;
use jc_unshare::program::Program;
use jc_unshare::supervise::{Child, Exit, NewChild, Poller, are_ready, readable};
use jc_unshare::sys::close_all_but;
use jc_unshare::{Context, Error, Result, require_program};
use nix::libc::SIGKILL;
use rustix::event::PollFd;
use rustix::stdio::stderr;
use serde_json::{Map, Value, json};

use super::args::RecordArgs;
use super::attach::{Attachment, receive_listener, send_filter, sockets};
use super::event::put;
use super::filter::filter;
use super::keeper::{Fate, Keeper};
use super::lookups::{self, Job, MOST_WAITING};
use super::recorder::Recorder;
use super::shared::{Shared, lock};
use super::sources::Sources;
use super::tables::{Gap, Tables};
use super::target::Target;
use super::tool::TOOL;

/// The longest wait for the last lookups.
const PATIENCE: Duration = Duration::from_secs(5);

/// The version of the report.
const VERSION: u32 = 1;

/// Runs the program, and writes the report. Returns the program's exit code.
pub fn record(args: &RecordArgs, program: &[OsString]) -> Result<ExitCode> {
    require_program(program)?;
    let mut target = Target::open(args)?;
    let (mut sources, usage) = Sources::open(args)?;
    let (ours, theirs) = sockets()?;
    let child = start(args, program, &ours, theirs, usage)?;
    // A reader of the program's output must see its end when the program closes it. Only stderr stays, for errors.
    let mut kept = child.descriptors().to_vec();
    kept.extend([ours.as_fd(), target.as_fd(), stderr()]);
    kept.extend(sources.descriptor());
    close_all_but(&kept);
    let mut session = Session {
        fate: args.on_death,
        is_all: args.all,
        child: &child,
        socket: Some(ours),
        shared: Arc::new(Shared::new(Tables::with_lines(target.lines()?))),
        failure: None,
        running: None,
    };
    let exit = child.wait_polling(&mut session)?;
    let (shared, failure) = session.finish(exit)?;
    if let Some(shared) = shared {
        let mut last = sources.events()?;
        last.push(end(exit));
        target.write(beginning(args, &shared), &mut lock(&shared), last)?;
    }
    failure.map_or_else(|| Ok(exit.end()), Err)
}

/// The first event.
fn beginning(args: &RecordArgs, shared: &Shared) -> Map<String, Value> {
    let mut event = Map::new();
    event.insert("event".into(), "trace".into());
    event.insert("version".into(), VERSION.into());
    event.insert("machine".into(), ARCH.into());
    event.insert("calls".into(), args.watched.calls.into());
    event.insert("links".into(), (args.watched.links || args.watched.calls).into());
    if let Some(beginning) = shared.beginning() {
        let words = beginning.arguments.iter().map(|word| String::from_utf8_lossy(word));
        event.insert("argv".into(), words.collect());
        put(&mut event, "cwd", &beginning.directory);
    }
    event
}

/// The last event.
fn end(exit: Exit) -> Map<String, Value> {
    Map::from_iter([
        ("event".to_owned(), json!("end")),
        ("code".to_owned(), json!(exit.code())),
        ("signal".to_owned(), json!(exit.signal())),
    ])
}

/// Starts the program with the filter, or a chain whose last link installs the filter.
fn start(
    args: &RecordArgs,
    argv: &[OsString],
    ours: &OwnedFd,
    theirs: OwnedFd,
    usage: Option<(OwnedFd, u32)>,
) -> Result<Child> {
    let Some(number) = args.trace_fd else {
        let filter = filter(args.watched, Attachment::number(&theirs))?;
        let attachment = Attachment::new(theirs, filter);
        let body = || match attachment.install_without_privilege() {
            Ok(()) => exec(argv),
            Err(error) => error,
        };
        return match args.on_death {
            Fate::End => NewChild::of(TOOL).spawn(|_| body()),
            Fate::Continue => NewChild::of(TOOL).spawn_unbound(|_| body()),
        };
    };
    if number <= 2 {
        let why = "descriptors up to 2 belong to the program";
        return Err(Error::usage(format_args!("--trace-fd {number}: {why}")));
    }
    send_filter(ours, &filter(args.watched, number.into())?)?;
    let mut program = Program::new(argv)?;
    program.inherit(theirs, number as i32);
    if let Some((writer, number)) = usage {
        program.inherit(writer, number as i32);
    }
    let program = match args.on_death {
        Fate::End => program,
        Fate::Continue => program.outliving(),
    };
    NewChild::of(TOOL).spawn_program(program)
}

/// The program from its start to its end.
struct Session<'a> {
    fate: Fate,
    is_all: bool,
    child: &'a Child,
    /// The socket by which the listener comes, until it has come.
    socket: Option<OwnedFd>,
    shared: Arc<Shared>,
    failure: Option<Error>,
    running: Option<Running>,
}

/// A recorder that runs.
struct Running {
    listener: Arc<OwnedFd>,
    keeper: Keeper,
    jobs: SyncSender<Job>,
    /// The pipe that ends with the thread of the recorder.
    end: Option<PipeReader>,
}

impl Running {
    fn start(listener: OwnedFd, fate: Fate, shared: &Arc<Shared>, is_all: bool) -> Result<Self> {
        // The keeper is a copy of this process, which must have one thread.
        let keeper = Keeper::start(&listener, fate)?;
        let listener = Arc::new(listener);
        let (jobs, queue) = sync_channel(MOST_WAITING);
        let (end, writer) = pipe().op("pipe")?;
        let recorder = Recorder::new(
            Arc::clone(&listener),
            keeper.last,
            Arc::clone(shared),
            jobs.clone(),
            is_all,
        );
        let (one, other, third) = (Arc::clone(shared), Arc::clone(shared), Arc::clone(shared));
        let mut alarm = writer.try_clone().op("dup")?;
        thread::Builder::new().spawn(move || lookups::run(&queue, &one)).op("start a thread")?;
        let run = move || {
            if let Err(error) = recorder.run() {
                other.fail(error);
            }
            drop(writer);
        };
        let watch = move || {
            third.wait_for_stall();
            third.fail(Error::new("the program keeps the recorder waiting for its memory"));
            // The other end is closed when the program has ended.
            let _: std::io::Result<()> = alarm.write_all(b"!");
        };
        thread::Builder::new().spawn(watch).op("start a thread")?;
        thread::Builder::new().spawn(run).op("start a thread")?;
        Ok(Self { listener, keeper, jobs, end: Some(end) })
    }
}

impl Session<'_> {
    /// Takes the listener, and starts the recorder.
    fn begin(&mut self) -> Result<()> {
        let Some(socket) = self.socket.take() else { return Ok(()) };
        if let Some(listener) = receive_listener(&socket)? {
            let running = Running::start(listener, self.fate, &self.shared, self.is_all)?;
            self.running = Some(running);
        }
        Ok(())
    }

    /// Waits for the last lookups. Returns the facts, or `None` if no program was executed, and the error of a recorder
    /// that has not seen the end of the program.
    fn finish(mut self, exit: Exit) -> Result<(Option<Arc<Shared>>, Option<Error>)> {
        // The program may have ended before this process has seen the listener.
        if let Some(socket) = &self.socket
            && are_ready(vec![readable(socket.as_fd())])?[0]
        {
            self.begin()?;
        }
        let Some(running) = self.running.take() else {
            return match exit {
                _ if self.failure.is_some() => Ok((None, self.failure)),
                Exit::Code(0) => Err(Error::new("no link has sent a listener")
                    .hint("jc-rootfs --trace-fd N records its program")),
                _ => Ok((None, None)),
            };
        };
        let (done, flushed) = sync_channel(1);
        let is_flushed = running.jobs.try_send(Job::Flush(done)).is_ok()
            && flushed.recv_timeout(PATIENCE).is_ok();
        if !is_flushed || self.shared.is_stalled() {
            lock(&self.shared).miss(Gap::Stalled);
        }
        if self.failure.is_some() {
            lock(&self.shared).miss(Gap::Failed);
        }
        if self.failure.is_none() {
            running.keeper.release(running.listener.as_fd())?;
        }
        Ok((Some(self.shared), self.failure))
    }

    /// Ends the program after an error, since nobody would answer its calls.
    fn fail(&mut self, error: Error) {
        self.failure.get_or_insert(error);
        // The program may have ended.
        let _: Result<()> = self.child.send(SIGKILL);
    }
}

impl Poller for Session<'_> {
    fn polled(&self) -> Vec<PollFd<'_>> {
        let end = self.running.as_ref().and_then(|running| running.end.as_ref());
        let socket = self.socket.as_ref().map(|socket| readable(socket.as_fd()));
        socket.into_iter().chain(end.map(|end| readable(end.as_fd()))).collect()
    }

    fn handle(&mut self, ready: &[bool]) {
        if !ready.contains(&true) {
            return;
        }
        if self.socket.is_some() {
            return match self.begin() {
                Ok(()) => {}
                Err(error) => self.fail(error),
            };
        }
        if let Some(running) = &mut self.running {
            running.end = None;
        }
        if let Some(error) = self.shared.failure.get() {
            let error = Error::new(error);
            self.fail(error);
        }
    }
}
