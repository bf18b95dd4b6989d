//! The `jc-unshare` tool.

use std::ffi::OsString;
use std::fs::File;
use std::io::{PipeReader, Read, Write, pipe};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, configure_capability_in_ambient_set,
    set_capabilities,
};

use super::child::Waiter;
use super::events::{StatusFd, exec_reporting};
use super::exit::Exit;
use super::hints::{advise, advise_inside};
use super::idmap::{MapOptions, Maps};
use super::join::{self, Joined};
use super::lifeline::Lifeline;
use super::namespaces::{Clocks, Kind, New, Propagation, steps};
use super::process::{Process, deny_tracing};
use super::program::{Program, Step};
use super::spawn::{Execution, NewChild};
use super::{info, init, namespaces, signals};
use crate::error::{Context, Error, Result};
use crate::on_demand::OnDemand;
use crate::{Tool, capability, require_program};

/// The name and exit codes of the tool.
pub const TOOL: Tool = Tool::link("jc-unshare");

/// Enter new or existing namespaces, then run PROG there
#[derive(Debug, Parser)]
#[group(skip)]
#[command(name = "jc-unshare", version, override_usage = "jc-unshare [options] [--] PROG [ARG...]")]
pub struct Args {
    #[command(flatten)]
    new: New,
    #[command(flatten)]
    clocks: OnDemand<Clocks>,
    /// Set the propagation of mounts between the mount namespace and the host (with -m)
    #[arg(long, value_name = "HOW")]
    propagation: Option<Propagation>,
    /// Mount a new procfs at DIR (with -m)
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = "/proc")]
    mount_proc: Option<PathBuf>,
    #[command(flatten)]
    ids: OnDemand<MapOptions>,
    /// Let PROG keep the capabilities of a user namespace even if it is not root there
    #[arg(long)]
    keep_caps: bool,
    /// Enter the namespaces of a process: PID[:KIND,...], all of them or those named (repeatable)
    #[arg(long = "join", value_name = "PID", value_parser = join::Process::parse)]
    processes: Vec<join::Process>,
    /// Enter the namespace of a file: KIND=PATH (repeatable)
    #[arg(long = "join-ns", value_name = "SPEC", value_parser = join::File::parse)]
    files: Vec<join::File>,
    /// Make PID 1 a process that only forwards signals and reaps orphans (with -p)
    #[arg(long)]
    init: bool,
    /// Give PROG descriptor N, for a PID 1 like that of --init in a later link (with -p)
    #[arg(long, value_name = "N", conflicts_with = "init")]
    init_fd: Option<u32>,
    /// Send PROG this signal when jc-unshare dies, instead of KILL (with -p or --join)
    #[arg(long, value_name = "SIGNAL", value_parser = signal)]
    kill_child: Option<Signal>,
    /// Exit as soon as PROG is executed as a child, which lives on
    #[arg(long, conflicts_with_all = ["init", "init_fd", "kill_child"])]
    no_wait: bool,
    /// Write the child's PID and namespaces to this descriptor, as JSON
    #[arg(long, value_name = "N")]
    info_fd: Option<u32>,
    /// Wait until this descriptor can be read before running PROG
    #[arg(long, value_name = "N")]
    block_fd: Option<u32>,
    /// Write events to this descriptor, as lines of JSON
    #[arg(long, value_name = "N")]
    status_fd: Option<u32>,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, value_name = "PROG")]
    program: Vec<OsString>,
}

fn signal(word: &str) -> std::result::Result<Signal, String> {
    let signal = signals::number(word).and_then(|number| Signal::try_from(number).ok());
    signal.ok_or_else(|| "not a signal (SIGKILL is sent without this option)".to_owned())
}

/// Enters the namespaces and runs the program. With a new or joined PID namespace this process forks, waits, and returns
/// the exit code of the payload; else this process becomes the payload.
pub fn run(mut args: Args) -> Result<ExitCode> {
    require_program(&args.program)?;
    args.imply();
    args.check()?;
    // This check comes first: a number that is not open yet may become that of a descriptor which this program opens.
    info::check_distinct([
        ("--info-fd", args.info_fd),
        ("--block-fd", args.block_fd),
        ("--init-fd", args.init_fd),
        ("--status-fd", args.status_fd),
    ])?;
    let status = args.status_fd.map(|number| StatusFd::open(TOOL, number)).transpose()?;
    let status = status.map(StatusFd::reporting_failure);
    let info = inherited_fd(args.info_fd, "--info-fd")?.map(File::from);
    let block = inherited_fd(args.block_fd, "--block-fd")?;
    let init = args.init_fd.map(init::pipe_as).transpose()?;
    let joined = Joined::open(&args.processes, &args.files)?;
    args.new.basic.check_names(args.new.has(Kind::Uts) || joined.has(Kind::Uts))?;
    let forks = args.new.has(Kind::Pid) || joined.has(Kind::Pid) || args.no_wait;
    if args.kill_child.is_some() && !forks {
        return Err(Error::usage("--kill-child needs -p, or a PID namespace to join"));
    }
    let maps = args.ids.any().then(|| args.ids.maps()).transpose()?;
    // A payload with CAP_SYS_PTRACE in a user namespace may trace a process as soon as the process enters the
    // namespace. A process that still has to write the maps or clock offsets of new namespaces must stay dumpable.
    if !args.writes_own_proc() {
        deny_tracing()?;
    }
    joined.enter()?;
    let mut launch = Launch { args, maps, info, block, init, status };
    if forks { launch.in_child() } else { Err(launch.in_place()) }
}

fn inherited_fd(number: Option<u32>, option: &str) -> Result<Option<OwnedFd>> {
    number.map(|number| info::inherit_fd(number, option)).transpose()
}

impl Args {
    /// Whether this process, or its child, writes to its own files in /proc.
    fn writes_own_proc(&self) -> bool {
        self.new.has(Kind::User) || self.new.has(Kind::Time)
    }

    /// Adds the namespaces that options imply, as those of unshare(1) do.
    fn imply(&mut self) {
        self.new.mount |= self.mount_proc.is_some();
        self.new.user |= self.ids.any();
    }

    /// Checks that an option that changes a namespace comes with the option that makes the namespace. The host would
    /// change otherwise.
    fn check(&self) -> Result<()> {
        let new = &self.new;
        new.basic.check_loopback(new.has(Kind::Net))?;
        for (given, kind, message) in [
            (self.clocks.boottime.is_some(), Kind::Time, "--boottime needs -T"),
            (self.clocks.monotonic.is_some(), Kind::Time, "--monotonic needs -T"),
            (
                self.propagation.is_some(),
                Kind::Mount,
                "--propagation needs -m: it would change the host's mounts",
            ),
            (self.init, Kind::Pid, "--init needs -p"),
            (self.init_fd.is_some(), Kind::Pid, "--init-fd needs -p"),
        ] {
            if given && !new.has(kind) {
                return Err(Error::usage(message));
            }
        }
        Ok(())
    }

    /// The steps that set up the new namespaces from inside.
    fn steps(&self) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        if self.new.has(Kind::Mount) {
            steps.extend(steps::propagation(self.propagation.unwrap_or_default()));
        }
        steps.extend(self.mount_proc.as_deref().map(steps::mount_proc).transpose()?);
        steps.extend(self.new.basic.steps());
        Ok(steps)
    }
}

/// The start of the program, with the descriptors that are opened before a namespace is entered.
struct Launch {
    args: Args,
    maps: Option<Maps>,
    info: Option<File>,
    block: Option<OwnedFd>,
    /// The pipe of `--init-fd`.
    init: Option<(OwnedFd, OwnedFd)>,
    status: Option<StatusFd>,
}

impl Launch {
    /// Starts the program in a child. clone3(2) makes the child with its namespaces, and this process stays outside.
    fn in_child(mut self) -> Result<ExitCode> {
        let flags = self.args.new.flags();
        if self.args.no_wait && self.is_straight() {
            return NewChild::of(TOOL)
                .in_namespaces(flags)
                .start_program(self.program()?)
                .map_err(advise(flags));
        }
        let execution = self.args.no_wait.then(Execution::new).transpose()?;
        let outside = self.maps_from_outside();
        let mut gate = outside.as_ref().map(|_| pipe()).transpose().op("pipe")?;
        let (reader, writer) = self.args.init.then(pipe).transpose().op("pipe")?.unzip();
        let (reader, inherited) = match self.init.take() {
            Some((reader, inherited)) => (Some(reader), Some(inherited)),
            None => (reader.map(OwnedFd::from), None),
        };
        let child = if self.is_straight() {
            NewChild::of(TOOL).in_namespaces(flags).spawn_program(self.program()?)
        } else {
            NewChild::of(TOOL).in_namespaces(flags).spawn_unbound(|life| {
                let gate = gate.as_mut().map(|g| &mut g.0);
                let error = self.child(life, gate, writer.map(OwnedFd::from));
                execution.iter().fold(error, |error, execution| execution.fail(error))
            })
        }
        .map_err(advise(flags))?
        .reporting(self.status);
        drop((self.info.take(), self.block.take(), inherited));
        if let (Some(maps), Some((_, mut open))) = (outside, gate) {
            maps.write_for(child.proc_number()?)?;
            open.write_all(b"!").op("release the child")?;
        }
        match execution.map(Execution::succeeds).transpose()? {
            Some(true) => Ok(ExitCode::SUCCESS),
            Some(false) => Ok(child.end()?.into()),
            None => Ok(child.wait_as(Waiter::Link(reader), &[])?.end()),
        }
    }

    /// Whether the child needs only [`Step`]s before the program. A new user or time namespace, --info-fd, --block-fd
    /// and --init need more.
    fn is_straight(&self) -> bool {
        !self.args.init
            && !self.args.keep_caps
            && self.info.is_none()
            && self.block.is_none()
            && !self.args.writes_own_proc()
    }

    /// The program, after its steps.
    fn program(&self) -> Result<Program> {
        let program = Program::new(&self.args.program)?;
        let program = program.after(self.args.steps()?).reporting(self.status);
        Ok(self.args.kill_child.into_iter().fold(program, Program::dying_by))
    }

    fn child(
        &mut self,
        life: &Lifeline,
        gate: Option<&mut PipeReader>,
        writer: Option<OwnedFd>,
    ) -> Error {
        let prepare = |launch: &mut Self| {
            launch.bind(life, Signal::SIGKILL)?;
            // The lookup comes before another procfs is mounted on /proc.
            let process = launch.status.map(|_| Process::this()).transpose()?;
            if let Some(gate) = gate {
                // The parent has written the error, or is dead.
                gate.read_exact(&mut [0]).map_err(|_| Error::quiet())?;
            }
            launch.set_up_inside()?;
            // A change of credentials disarms PR_SET_PDEATHSIG.
            launch.bind(life, launch.args.kill_child.unwrap_or(Signal::SIGKILL))?;
            Ok(process)
        };
        match prepare(self) {
            Ok(process) => self.become_program(process, writer),
            Err(error) => error,
        }
    }

    /// Ties the life of this child to that of its parent, unless the child outlives the parent.
    fn bind(&self, life: &Lifeline, signal: Signal) -> Result<()> {
        if self.args.no_wait { Ok(()) } else { life.arm(signal) }
    }

    /// Executes the program in place of this process, which needs no child without a PID namespace.
    fn in_place(&mut self) -> Error {
        let flags = self.args.new.flags();
        let enter = |launch: &mut Self| {
            match launch.maps_from_outside() {
                None => namespaces::unshare(flags)?,
                Some(maps) => unshare_and_be_mapped(flags, &maps)?,
            }
            launch.set_up_inside()
        };
        enter(self).err().unwrap_or_else(|| self.become_program(None, None))
    }

    /// The maps, if a process outside of the namespace has to write them.
    fn maps_from_outside(&self) -> Option<Maps> {
        self.maps.clone().filter(|maps| !maps.is_self_writable())
    }

    /// Sets up the namespaces from inside. Adds a hint to an error.
    fn set_up_inside(&mut self) -> Result<()> {
        let outcome = self.set_up();
        if self.args.new.has(Kind::User) { outcome.map_err(advise_inside) } else { outcome }
    }

    fn set_up(&mut self) -> Result<()> {
        let args = &self.args;
        if let Some(maps) = self.maps.as_ref().filter(|maps| maps.is_self_writable()) {
            maps.write_own()?;
        }
        // A process that has changed its user cannot write to its own files in /proc, so this step comes before.
        if args.new.has(Kind::Time) {
            namespaces::enter_time(*args.clocks)?;
        }
        if args.writes_own_proc() {
            deny_tracing()?;
        }
        let needs_root = |maps: &Maps| !maps.is_self_writable() && maps.needs_root();
        if !args.keep_caps && self.maps.as_ref().is_some_and(needs_root) {
            become_root()?;
        }
        // The descriptor is closed here, since the reader waits for the end of the file before it writes to --block-fd.
        self.info.take().map_or(Ok(()), |info| info::write_info(&info))?;
        args.steps()?.iter().try_for_each(Step::perform)
    }

    /// Executes the program. `process` is this process if its start is reported as an event.
    fn become_program(&self, process: Option<Process>, writer: Option<OwnedFd>) -> Error {
        if let Some(Err(error)) = self.block.as_ref().map(info::wait_for_release) {
            return error;
        }
        if let Err(error) = self.args.keep_caps.then(keep_capabilities).transpose() {
            return error;
        }
        let execute = || {
            let started = self.status.zip(process).map(|(status, process)| status.started(process));
            match started {
                Some(Err(error)) => error,
                _ => exec_reporting(self.status, &self.args.program),
            }
        };
        match writer {
            Some(writer) => init::run(TOOL, writer, execute),
            None => execute(),
        }
    }
}

/// Makes new namespaces. A helper, which stays outside, then writes the maps.
fn unshare_and_be_mapped(flags: u64, maps: &Maps) -> Result<()> {
    let (mut gate, mut open) = pipe().op("pipe")?;
    let pid = info::proc_number()?;
    let helper =
        NewChild::of(TOOL).spawn(|_| match gate.read_exact(&mut [0]).op("wait for unshare") {
            Ok(()) => match maps.write_for(pid) {
                Ok(()) => std::process::exit(0),
                Err(error) => error,
            },
            Err(_) => Error::quiet(), // the parent has written the error
        })?;
    namespaces::unshare(flags)?;
    open.write_all(b"!").op("release the helper")?;
    match helper.reap()? {
        Exit::Code(0) => Ok(()),
        _ => Err(Error::quiet()), // the helper has written the error
    }
}

/// Makes all permitted capabilities ambient (capabilities(7)), since execve(2) takes the others from a user who is not
/// root.
fn keep_capabilities() -> Result<()> {
    let permitted = capabilities(None).op("capget")?.permitted;
    let sets = CapabilitySets { effective: permitted, permitted, inheritable: permitted };
    set_capabilities(None, sets).op("capset")?;
    for number in (0..u64::BITS).filter(|number| permitted.bits() & 1 << number != 0) {
        let one = CapabilitySet::from_bits_retain(1 << number);
        configure_capability_in_ambient_set(one, true)
            .on("PR_CAP_AMBIENT_RAISE", capability::name(number))?;
    }
    Ok(())
}

/// Becomes root of the namespace, for a caller whose own IDs are not in the maps.
fn become_root() -> Result<()> {
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    setgroups(&[]).op("setgroups")?;
    setresgid(gid, gid, gid).op("setresgid")?;
    setresuid(uid, uid, uid).op("setresuid")
}
