//! The last steps before execve(2): working directory, environment, console, limits, user, capabilities, filter.

pub mod attributes;
pub mod caps;
pub mod console;
mod credentials;
mod directories;
pub mod gate;
pub mod init;
pub mod program;
pub mod rlimit;
mod setup;
pub mod started;
pub mod sysctl;

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use jc_unshare::exec::{check, find, replace};
use jc_unshare::supervise::Lifeline;
use jc_unshare::{Context, Error, Result};
use nix::sys::signal::SIGKILL;
use nix::unistd::{getpgrp, getpid};
use rustix::process::setsid;
use rustix::thread::set_no_new_privs;

use crate::environment::Environment;
use crate::linux::args::Args;
use crate::linux::landlock::{self, Ruleset};
use crate::linux::seccomp::{Filter, Listener, Seccomp};
use crate::linux::sys;
use crate::linux::trace::attach::Attachment;
use crate::user;
use caps::PayloadSets;
use console::Console;
use credentials::Credentials;
pub use directories::{ContainerRoot, Directories};
use gate::Gate;
use init::Init;
use rlimit::Ulimit;
use setup::LastParent;
pub use setup::Setup;
use started::Started;

/// A command line: the options, and the program to execute.
#[derive(Clone, Copy)]
pub struct Invocation<'a> {
    /// The options of the command line.
    pub args: &'a Args,
    /// The name of the program, which PATH finds.
    pub name: &'a OsStr,
    /// The arguments of the program.
    pub arguments: &'a [OsString],
}

impl<'a> Invocation<'a> {
    /// Splits a program into name and arguments. An empty program is a usage error.
    pub fn new(args: &'a Args, program: &'a [OsString]) -> Result<Self> {
        let split = program.split_first();
        let (name, arguments) = split.ok_or_else(|| {
            Error::usage("no program given to run").hint("PROG [ARG...] follows the root")
        })?;
        Ok(Self { args, name, arguments })
    }
}

/// Whether the payload must be a child of this process: the leader of a process group cannot begin a session
/// (setsid(2)).
pub fn needs_child_to_lead(args: &Args) -> bool {
    args.leads_session() && getpgrp() == getpid()
}

/// Replaces this process by the payload. `life` ties this process to the waiting link that is its parent. Returns
/// only an error.
pub fn run(
    invocation: Invocation<'_>,
    directories: &Directories,
    mut setup: Setup,
    life: Option<&Lifeline>,
) -> Error {
    let init = setup.init.take();
    // A filter may forbid the write later.
    let started = setup.started;
    let reported = started.as_ref().map_or(Ok(()), Started::report);
    let executor = Executor::This(life, init.as_ref());
    let payload = reported.and_then(|()| prepare(invocation, directories, setup, executor));
    let error = match (payload, &init) {
        (Ok(payload), Some(init)) => {
            let command = (invocation.name, invocation.arguments);
            init.execute(started.as_ref(), command, payload.environment)
        }
        (Ok(payload), None) => payload.execute(invocation),
        (Err(error), _) => error,
    };
    started.iter().for_each(|started| started.report_failure(&error));
    error
}

/// The process that executes the program.
enum Executor<'a> {
    /// This process, whose parent may be a waiting link, or the PID 1 that this process executes.
    This(Option<&'a Lifeline>, Option<&'a Init>),
    /// A copy of this process, which begins after the other steps.
    Copy,
}

/// A payload whose remaining steps belong to the process that executes it.
pub struct Payload {
    path: PathBuf,
    environment: Environment,
    /// Whether a copy of this process begins a session.
    leads_session: bool,
    console: Option<Console>,
    ruleset: Option<Ruleset>,
    filter: Option<Filter>,
    recorder: Option<Attachment>,
    /// The listener of a filter that this process has installed for its copy.
    pub listener: Option<Listener>,
}

impl Payload {
    /// Takes the steps for a copy of this process. The filter of a profile in a file may forbid the steps of the copy,
    /// so with --no-new-privs that filter is the last step of the copy. A filter with a listener is installed by this
    /// process, which knows the PID of the copy for the agent.
    pub fn for_copy(
        invocation: Invocation<'_>,
        directories: &Directories,
        setup: Setup,
    ) -> Result<Self> {
        prepare(invocation, directories, setup, Executor::Copy)
    }

    /// Takes the steps of the copy and executes the program. `life` ties the copy to the waiting link. Returns only
    /// an error.
    pub fn finish(mut self, invocation: Invocation<'_>, life: &Lifeline) -> Error {
        let mut finish = || {
            if self.leads_session {
                setsid().op("setsid")?;
            }
            self.console.as_ref().map_or(Ok(()), Console::set_controlling)?;
            if !invocation.args.process.no_wait {
                life.arm(SIGKILL)?;
            }
            invocation.args.attributes.apply_labels()?;
            self.ruleset.iter().try_for_each(Ruleset::restrict_self)?;
            install(self.recorder.take().as_ref(), self.filter.take(), None).map(drop)
        };
        match finish() {
            Ok(()) => self.execute(invocation),
            Err(error) => error,
        }
    }

    /// Returns only an error.
    fn execute(self, invocation: Invocation<'_>) -> Error {
        let mut command = Command::new(self.path);
        command.arg0(invocation.name).args(invocation.arguments);
        self.environment.apply(&mut command);
        replace(&mut command)
    }
}

fn prepare(
    invocation: Invocation<'_>,
    directories: &Directories,
    mut setup: Setup,
    executor: Executor<'_>,
) -> Result<Payload> {
    let args = invocation.args;
    let is_copy = matches!(executor, Executor::Copy);
    let (credentials, environment) = enter(args, directories, &setup, is_copy)?;
    let mut ruleset = landlock::ruleset(&args.process.landlock)?;
    args.attributes.apply(is_copy || args.process.init_fd.is_some())?;
    args.ulimits.iter().try_for_each(Ulimit::apply)?;
    // A filter needs CAP_SYS_ADMIN or no_new_privs. With no_new_privs the filter comes later, so that it need not
    // allow the steps in between.
    let no_new_privs = args.no_new_privs || ruleset.is_some();
    let mut listener = None;
    if !no_new_privs {
        listener = install(setup.recorder.take().as_ref(), setup.filter.take(), setup.payload)?;
    }
    if args.process.own_stdio {
        credentials.own_streams()?;
    }
    setup.sets.iter().try_for_each(PayloadSets::drop_bounding)?;
    credentials.apply()?;
    setup.sets.iter().try_for_each(PayloadSets::set_others)?;
    if credentials.identity.is_some() {
        bind_to_parent(&executor, &setup)?;
    }
    let path = find_program(invocation.name, &environment, &setup)?;
    if !is_copy {
        args.attributes.apply_labels()?;
    }
    if no_new_privs {
        set_no_new_privs(true).op("PR_SET_NO_NEW_PRIVS")?;
    }
    setup.gates.pass(Gate::Exec, setup.started.as_ref())?;
    setup.last_parent.as_ref().map_or(Ok(()), LastParent::bind)?;
    sys::default_signals().op("rt_sigaction")?;
    if let Executor::This(_, init) = executor {
        if let (Some(ruleset), Some(init)) = (&ruleset, init) {
            ruleset.allow_execution(init.program())?;
        }
        ruleset.take().iter().try_for_each(Ruleset::restrict_self)?;
    }
    // Without no_new_privs the filter is active already.
    let has_agent = setup.filter.as_ref().is_some_and(Filter::has_agent);
    if !is_copy || args.seccomp == Seccomp::Default || has_agent {
        let installed =
            install(setup.recorder.take().as_ref(), setup.filter.take(), setup.payload)?;
        listener = listener.or(installed);
    }
    let Setup { console, filter, recorder, .. } = setup;
    let leads_session = args.leads_session();
    Ok(Payload { path, environment, leads_session, console, ruleset, filter, recorder, listener })
}

/// Lets this process die with its parent again, since a change of credentials resets that (PR_SET_PDEATHSIG(2const)).
fn bind_to_parent(executor: &Executor<'_>, setup: &Setup) -> Result<()> {
    match executor {
        Executor::Copy => Ok(()),
        Executor::This(Some(life), _) => life.arm(SIGKILL),
        Executor::This(None, _) => setup.parent.die_with(),
    }
}

/// Finds the program of the payload, which must not be the file of jc-rootfs.
fn find_program(name: &OsStr, environment: &Environment, setup: &Setup) -> Result<PathBuf> {
    let path = find(name, environment.path())?;
    if setup.gates.waits_at(Gate::Exec) {
        // The caller learns before the gate that the program is absent.
        check(name, &path)?;
    }
    if let Some(exe) = setup.exe {
        exe.refuse(&path)?;
    }
    Ok(path)
}

/// Installs the filters. The filter of a profile comes last, since that filter may deny the installation of the other one.
/// The agent of the profile gets the listener, or the caller does if the PID of the payload is not known yet.
fn install(
    recorder: Option<&Attachment>,
    filter: Option<Filter>,
    payload: Option<u32>,
) -> Result<Option<Listener>> {
    recorder.map_or(Ok(()), Attachment::install)?;
    match (filter.map_or(Ok(None), Filter::install)?, payload) {
        (Some(listener), Some(pid)) => listener.send(pid).map(|()| None),
        (listener, _) => Ok(listener),
    }
}

/// Finds the user and the environment in the files of the root, and enters the working directory.
fn enter(
    args: &Args,
    directories: &Directories,
    setup: &Setup,
    is_copy: bool,
) -> Result<(Credentials, Environment)> {
    let credentials = Credentials::find(args, &directories.root, setup.keeps_groups)?;
    let mut environment = Environment::new(&args.environment, &setup.variables);
    if !environment.has_home() {
        // The default is the home directory of the user, as in container runtimes.
        let home = user::home(credentials.uid(), &directories.root)?;
        environment.set("HOME", Some(home.into()));
    }
    directories.enter()?;
    if let Some(console) = &setup.console {
        console.set_owner(credentials.identity.as_ref().map(|user| user.uid))?;
        if !is_copy {
            console.set_controlling()?;
        }
    }
    Ok((credentials, environment))
}
