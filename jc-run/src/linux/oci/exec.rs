//! `exec`: one more program in a container.

use std::fs::File;
use std::path::Path;
use std::process::ExitCode;

use jc_unshare::capability::number;
use jc_unshare::process::Process as Child;
use jc_unshare::{Context as _, Error, Result, print, read_at_most};
use nix::libc::SIGKILL;
use rustix::thread::{CpuSet, sched_setaffinity};

use super::args::Exec;
use super::chain::{self, Inherited, PATIENCE};
use super::compile::{self, Compiled, Context, Descriptors, Target};
use super::config::Process;
use super::create::LONGEST;
use super::environment::{Environment, held_capabilities};
use super::state::{Record, Root, Status};
use super::wait::{Signals, attend};
use super::{handover, list};
use crate::linux::variables::take_values;

/// Executes a program in a container.
pub fn command(environment: &Environment, options: &Exec) -> Result<ExitCode> {
    let root = Root::open(environment.root.as_deref(), false)?;
    let record = root.find(&options.container.id)?.read()?;
    match list::status(&record)? {
        Status::Created | Status::Running => {}
        Status::Paused if options.ignore_paused => {}
        Status::Paused => {
            return Err(Error::new(
                "cannot exec in a paused container (use --ignore-paused to override)",
            ));
        }
        Status::Creating => {
            return Err(Error::new("cannot exec in a container that is not created"));
        }
        Status::Stopped => return Err(stopped()),
    }
    let process = process(&record, options)?;
    let socket = options.handover.console_socket.as_deref();
    let execution = Execution { record: &record, options, process: &process };
    if environment.prints {
        let path = process.terminal.then(|| Path::new("console"));
        let descriptors = Descriptors::after(options.handover.preserve_fds);
        let compiled = execution.compile(socket.or(path), descriptors)?;
        return print(compiled.chain().locate()?.to_shell()).map(|()| ExitCode::SUCCESS);
    }
    if options.detach {
        execution.start(environment, socket)?;
        return Ok(ExitCode::SUCCESS);
    }
    let stay = |socket: Option<&Path>| {
        let signals = Signals::block()?;
        signals.wait(Some(execution.start(environment, socket)?))
    };
    if process.terminal && socket.is_none() {
        return attend(environment, |socket| stay(Some(socket)));
    }
    stay(socket).map(Into::into)
}

fn stopped() -> Error {
    Error::new("cannot exec in a stopped container")
}

/// A program that is to be executed.
struct Execution<'a> {
    record: &'a Record,
    options: &'a Exec,
    process: &'a Process,
}

impl Execution<'_> {
    fn compile(&self, console_socket: Option<&Path>, descriptors: Descriptors) -> Result<Compiled> {
        let Self { record, options, process } = self;
        let cgroup = record.cgroup.as_ref().map(|path| match &options.cgroup {
            Some(below) => format!("{path}/{}", below.display().to_string().trim_matches('/')),
            None => path.clone(),
        });
        let pid = record.process().ok_or_else(|| Error::new("the container has no process"))?.pid;
        let has_user = record.config.linux().namespaces.iter().any(|one| one.kind == "user");
        let context = Context {
            bundle: &record.bundle,
            cgroup: cgroup.as_deref(),
            waits_for_thaw: options.ignore_paused,
            waits_for_scope: false,
            descriptors,
            console_socket,
            preserved: options.handover.preserve_fds,
            listened: None,
            parent: None,
            held: if has_user { u64::MAX } else { held_capabilities()? },
            state: &record.state(record.status()?),
        };
        let target = Target { config: &record.config, pid };
        compile::exec(process, target, &context)
    }

    /// Runs the chain up to the execution of the program.
    fn start(&self, environment: &Environment, console_socket: Option<&Path>) -> Result<Child> {
        let affinity =
            self.process.exec_cpu_affinity.as_ref().map(|affinity| affinity.initial.as_str());
        affinity.filter(|list| !list.is_empty()).map_or(Ok(()), set_affinity)?;
        let inherited = Inherited::pipe(self.options.handover.preserve_fds)?;
        let mut compiled = self.compile(console_socket, inherited.numbers())?;
        compiled.warnings.iter().for_each(|text| environment.log.warn(text));
        let variables = take_values(&mut compiled.links);
        let chain = compiled.chain().locate()?;
        environment.log.debug(|| String::from_utf8_lossy(&chain.to_shell()).into_owned());
        let mut running = chain::start(None, inherited, &chain, &variables)?;
        let program = self.process.args[0].as_str();
        // A chain in a paused container waits for `resume`.
        let patience = Some(PATIENCE).filter(|_| !self.options.ignore_paused);
        let outcome = running.events.expect(patience, program, |event| event["event"] == "started");
        let outcome = outcome.and_then(|first| {
            running.events.expect_end(program)?;
            chain::process(&first, self.record.config.linux())
        });
        running.child.wait().op("wait")?;
        let child = outcome.or_else(|error| match self.record.process() {
            Some(process) if process.is_ending()? => Err(stopped()),
            _ => Err(error),
        })?;
        handover::give(&self.options.handover, child).inspect_err(|_| {
            // The caller knows no PID to end, and the error of the handover is the one to report.
            let _: Result<bool> = child.signal(SIGKILL);
        })?;
        Ok(child)
    }
}

/// The program: that of a file, or the container's with what the command line changes.
fn process(record: &Record, options: &Exec) -> Result<Process> {
    if let Some(path) = &options.process {
        let text = read_at_most(File::open(path).on("open", path)?, LONGEST, path)?;
        let parsed = serde_json::from_slice(&text);
        return parsed.map_err(|e| Error::new(format_args!("parse {}: {e}", path.display())));
    }
    if options.program.is_empty() {
        return Err(Error::new("exec: no program given to run"));
    }
    let mut process = record.config.process()?.clone();
    process.args.clone_from(&options.program);
    (process.terminal, process.console_size) = (options.tty, None);
    process.env.extend(options.env.iter().cloned());
    if let Some(cwd) = &options.cwd {
        process.cwd.clone_from(cwd);
    }
    if let Some((uid, gid)) = options.user {
        (process.user.uid, process.user.gid) = (uid, gid.unwrap_or(process.user.gid));
    }
    process.user.additional_gids.extend(&options.additional_gids);
    let capabilities = process.capabilities.get_or_insert_default();
    for name in &options.cap {
        number(name).ok_or_else(|| Error::new(format_args!("--cap {name}: no capability")))?;
        capabilities.add(name);
    }
    process.no_new_privileges |= options.no_new_privs;
    if let Some(profile) = &options.apparmor {
        process.apparmor_profile.clone_from(profile);
    }
    if let Some(label) = &options.process_label {
        process.selinux_label.clone_from(label);
    }
    Ok(process)
}

/// Moves this process to CPUs of a list such as `0-2,5`.
fn set_affinity(list: &str) -> Result<()> {
    let fault = || Error::new(format_args!("execCPUAffinity: {list:?}: not a list such as 0-2,5"));
    let mut cpus = CpuSet::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number =
            |word: &str| word.trim().parse::<usize>().ok().filter(|n| *n < CpuSet::MAX_CPU);
        let (first, last) = number(first).zip(number(last)).ok_or_else(fault)?;
        (first..=last).for_each(|cpu| cpus.set(cpu));
    }
    sched_setaffinity(None, &cpus).op("sched_setaffinity")
}
