//! The waiting link: starts the program or the chain, and writes the report at its end.

use std::env::consts::ARCH;
use std::ffi::OsString;
use std::io::PipeReader;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use jc_unshare::exec::exec;
use jc_unshare::program::Program;
use jc_unshare::rights;
use jc_unshare::supervise::{Child, Exit, NewChild, Poller, are_ready, readable};
use jc_unshare::sys::close_all_but;
use jc_unshare::{Context, Error, Result, require_program};
use nix::libc::SIGKILL;
use rustix::event::PollFd;
use rustix::stdio::stderr;
use serde_json::{Value, json};

use super::super::sys::map_thread_handles;
use super::args::RecordArgs;
use super::attach::{Attachment, receive_listener, send_watched};
use super::keeper::{Fate, Keeper};
use super::lookups::{self, Job, MOST_WAITING};
use super::recorder::{Recorder, shares};
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
    let (ours, theirs) = rights::sockets()?;
    let child = start(args, program, &ours, theirs, usage)?;
    // A reader of the program's output must see its end when the program closes it. Only stderr stays, for errors.
    let mut kept = child.descriptors().to_vec();
    kept.extend([ours.as_fd(), target.as_fd(), stderr()]);
    kept.extend(sources.descriptor());
    close_all_but(&kept);
    let (shared, failed) = Shared::new(target.lines(args.all)?)?;
    let shared = Arc::new(shared);
    let mut session = Session {
        fate: args.on_death,
        child: &child,
        socket: Some(ours),
        shared: Arc::clone(&shared),
        failed,
        failure: None,
        running: None,
    };
    let exit = child.wait_polling(&mut session)?;
    let (has_begun, failure) = session.finish(exit)?;
    if has_begun {
        let mut last = sources.events()?;
        last.push(json!({ "event": "end", "code": exit.code(), "signal": exit.signal() }));
        let tables = &mut *lock(&shared);
        target.write(first(args, tables), tables, last)?;
    }
    failure.map_or_else(|| Ok(exit.end()), Err)
}

/// The first event.
fn first(args: &RecordArgs, tables: &Tables) -> Value {
    let mut event = tables.first.clone().unwrap_or_else(|| json!({ "event": "trace" }));
    event["version"] = VERSION.into();
    event["machine"] = ARCH.into();
    event["calls"] = args.watched.calls.into();
    event["links"] = (args.watched.links || args.watched.calls).into();
    event
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
        let attachment = Attachment::new(theirs, args.watched)?;
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
    send_watched(ours, args.watched)?;
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
    child: &'a Child,
    /// The socket by which the listener comes, until it has come.
    socket: Option<OwnedFd>,
    shared: Arc<Shared>,
    /// The pipe that wakes this thread after a failure of the recorder.
    failed: PipeReader,
    failure: Option<Error>,
    running: Option<Running>,
}

/// A recorder that runs.
struct Running {
    listener: Arc<OwnedFd>,
    keeper: Keeper,
    jobs: SyncSender<Job>,
}

impl Running {
    fn start(listener: OwnedFd, fate: Fate, shared: &Arc<Shared>) -> Result<Self> {
        // The keeper is a copy of this process, which must have one thread.
        let keeper = Keeper::start(&listener, fate)?;
        let listener = Arc::new(listener);
        let (jobs, queue) = sync_channel(MOST_WAITING);
        let recorder = Recorder {
            listener: Arc::clone(&listener),
            last: keeper.last,
            shared: Arc::clone(shared),
            jobs: jobs.clone(),
        };
        map_thread_handles().op("start a thread")?;
        let looks = Arc::clone(shared);
        thread::Builder::new().spawn(move || lookups::run(&queue, &looks)).op("start a thread")?;
        let watch = Arc::clone(shared);
        let watch = move || {
            watch.wait_for_stall();
            watch.fail(Error::new("the program keeps the recorder waiting for its memory"));
        };
        thread::Builder::new().spawn(watch).op("start a thread")?;
        for (index, share) in shares().into_iter().enumerate() {
            let recorder = recorder.clone();
            let run = move || {
                recorder.run(index, &share).unwrap_or_else(|error| recorder.shared.fail(error));
            };
            thread::Builder::new().spawn(run).op("start a thread")?;
        }
        Ok(Self { listener, keeper, jobs })
    }
}

impl Session<'_> {
    /// Takes the listener, and starts the recorder.
    fn begin(&mut self) -> Result<()> {
        let Some(socket) = self.socket.take() else { return Ok(()) };
        if let Some(listener) = receive_listener(&socket)? {
            self.running = Some(Running::start(listener, self.fate, &self.shared)?);
        }
        Ok(())
    }

    /// Waits for the last lookups. Returns whether a program was executed, and the error of a recorder that has not seen
    /// the end of the program.
    fn finish(mut self, exit: Exit) -> Result<(bool, Option<Error>)> {
        // The program may have ended before this process has seen the listener.
        if let Some(socket) = &self.socket
            && are_ready(vec![readable(socket.as_fd())])?[0]
        {
            self.begin()?;
        }
        let Some(running) = self.running.take() else {
            return match exit {
                Exit::Code(0) if self.failure.is_none() => {
                    Err(Error::new("no link has sent a listener")
                        .hint("jc-rootfs --trace-fd N records its program"))
                }
                _ => Ok((false, self.failure)),
            };
        };
        let (done, flushed) = sync_channel(1);
        let is_flushed = running.jobs.try_send(Job::Flush(done)).is_ok()
            && flushed.recv_timeout(PATIENCE).is_ok();
        if !is_flushed || self.shared.is_stalled() {
            lock(&self.shared).miss(Gap::Stalled);
        }
        match &self.failure {
            Some(_) => lock(&self.shared).miss(Gap::RecorderFailed),
            None => running.keeper.release(running.listener.as_fd())?,
        }
        Ok((true, self.failure))
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
        let failed = self.failure.is_none().then(|| readable(self.failed.as_fd()));
        let socket = self.socket.as_ref().map(|socket| readable(socket.as_fd()));
        socket.into_iter().chain(failed).collect()
    }

    fn handle(&mut self, ready: &[bool]) {
        if !ready.contains(&true) {
            return;
        }
        if self.socket.is_some() {
            return self.begin().unwrap_or_else(|error| self.fail(error));
        }
        if let Some(error) = self.shared.failure.get() {
            let error = Error::new(error);
            self.fail(error);
        }
    }
}
