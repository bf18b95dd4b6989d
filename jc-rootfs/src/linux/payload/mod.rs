//! What comes last: working directory, environment, user, descriptors, exec.

pub mod caps;
pub mod console;
pub mod init;
pub mod program;
pub mod rlimit;
pub mod started;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use jc_unshare::exec::{find, replace};
use jc_unshare::process::{Process, Stat};
use jc_unshare::supervise::Lifeline;
use jc_unshare::{Absent, Context, Error, Result};
use nix::libc;
use nix::sys::signal::SIGKILL;
use nix::unistd::{Gid, Uid, getgroups, getpgrp, getpid, setgroups, setresgid, setresuid};
use rustix::process::{
    Signal, fchdir, getcwd, parent_process_death_signal, set_parent_process_death_signal, setsid,
};
use rustix::thread::set_no_new_privs;

use crate::environment::{Environment, Variable};
use crate::linux::args::Args;
use crate::linux::mount::resolve::{Missing, open_file, resolve};
use crate::linux::seccomp::{Filter, Seccomp};
use crate::linux::sys;
use crate::user::{self, Identity};
use caps::PayloadSets;
use console::Console;
use init::Init;
use program::SelfExe;
use rlimit::Ulimit;
use started::Started;

/// The root of the container as a directory to open things in.
pub struct ContainerRoot(pub OwnedFd);

impl user::Files for ContainerRoot {
    fn open(&self, path: &Path) -> Result<Option<File>> {
        Ok(open_file(self.0.as_fd(), path)?.map(File::from))
    }
}

/// Whether the payload is to lead a session.
fn leads(args: &Args) -> bool {
    args.new_session || args.console_socket.is_some()
}

/// Whether only a child of this process can be what is asked for: the leader of a process group
/// cannot begin a session (setsid(2)).
pub fn needs_child_to_lead(args: &Args) -> bool {
    leads(args) && getpgrp() == getpid()
}

/// What has to be known of the host before its "/" is gone.
pub struct Host {
    parent: Parent,
    /// Those of `--env-file`.
    variables: Vec<Variable>,
    sets: Option<PayloadSets>,
    filter: Option<Filter>,
    exe: Option<SelfExe>,
    /// This user namespace lets nobody change the supplementary groups.
    groups_stay: bool,
    /// Where the console's master is to go.
    socket: Option<OwnedFd>,
    console: Option<Console>,
    pub started: Option<Started>,
    /// What is to be PID 1 in place of the payload.
    pub init: Option<Init>,
}

impl Host {
    /// Finds it out.
    pub fn look(args: &Args) -> Result<Self> {
        sys::close_on_exec_from(3 + args.preserve_fds).op("close_range")?;
        own_keyring()?;
        let (parent, this) = Parent::note(args.status_fd.is_some())?;
        let started = args.status_fd.zip(this);
        let started = started.map(|(number, this)| Started::open(number, this)).transpose()?;
        let socket = args.console_socket.as_deref().map(console::connect_to).transpose()?;
        let variables = args.environment.read_files()?;
        let sets = args.caps.sets()?;
        let filter = match (&args.seccomp, sets) {
            (Seccomp::Unconfined, _) => None,
            (seccomp, Some(sets)) => seccomp.filter(sets.bounding)?,
            (seccomp, None) => seccomp.filter(caps::permitted()?.bits())?,
        };
        let exe = SelfExe::find()?;
        let groups_stay = args.user.is_some() && denies_setgroups()?;
        let (console, init) = (None, None);
        Ok(Self {
            parent,
            variables,
            sets,
            filter,
            exe,
            groups_stay,
            socket,
            console,
            started,
            init,
        })
    }

    /// Begins a session if that is asked for; not as the leader of a process group, who cannot.
    pub fn begin_session(&self, args: &Args) -> Result<()> {
        if leads(args) { setsid().op("setsid").map(drop) } else { Ok(()) }
    }

    /// Makes the console that is asked for, in a root that has its devpts.
    pub fn open_console(&mut self, root: BorrowedFd<'_>, bind: bool) -> Result<()> {
        let Some(socket) = self.socket.take() else { return Ok(()) };
        self.console = Some(Console::open(root, &socket, bind)?);
        Ok(())
    }
}

/// Whether this user namespace denies setgroups(2), as after an unprivileged user has mapped one group
/// (user_namespaces(7)). A kernel without user namespaces lacks the file.
fn denies_setgroups() -> Result<bool> {
    let path = "/proc/self/setgroups";
    let text = std::fs::read(path).on("read", path).absent()?;
    Ok(text.is_some_and(|text| text.starts_with(b"deny")))
}

/// Leaves the session keyring of the caller, whose keys are no business of the payload.
fn own_keyring() -> Result<()> {
    match sys::new_session_keyring() {
        // A kernel without keyrings, or a filter that keeps this and every later program from them.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => Ok(()),
        other => other.op("keyctl").map_err(|e| e.hint("see the sysctls kernel.keys.*")),
    }
}

/// Where the payload starts, all of it opened by descriptor.
pub struct Place {
    /// The root of the container, by now that of this process.
    pub root: ContainerRoot,
    /// The working directory, which was found below the root.
    workdir: OwnedFd,
    /// As it was asked for.
    path: PathBuf,
}

impl Place {
    /// Finds the working directory in `root`.
    pub fn new(args: &Args, root: OwnedFd, missing: Missing) -> Result<Self> {
        let path = args.workdir.as_deref().unwrap_or(Path::new("/"));
        let workdir = resolve(root.as_fd(), path, missing)?;
        Ok(Self { root: ContainerRoot(root), workdir, path: path.to_owned() })
    }
}

/// Starts the program there; `life` ties a child to the process that waits for it. Returns only an
/// error.
pub fn run(
    args: &Args,
    program: &[OsString],
    place: Place,
    mut host: Host,
    life: Option<&Lifeline>,
) -> Error {
    let Some((name, rest)) = program.split_first() else {
        return Error::usage("no program given to run");
    };
    let (started, init) = (host.started.take(), host.init.take());
    // Before a filter forbids it.
    let reported = started.as_ref().map_or(Ok(()), Started::report);
    let ready = reported.and_then(|()| prepare(args, name, place, host, By::This(life)));
    let error = match (ready, &init) {
        (Ok(ready), Some(init)) => init.execute(started.as_ref(), program, ready.environment),
        (Ok(ready), None) => ready.execute(name, rest),
        (Err(error), _) => error,
    };
    started.iter().for_each(|started| started.report_failure(&error));
    error
}

/// Which process executes the program: this one, which may have a waiting link as its parent, or a copy of
/// it that begins when all else is done.
enum By<'a> {
    This(Option<&'a Lifeline>),
    Copy,
}

/// A payload that lacks only what its own process does.
pub struct Ready {
    path: PathBuf,
    environment: Environment,
    /// For a copy of this process.
    leads: bool,
    console: Option<Console>,
    filter: Option<Filter>,
}

impl Ready {
    /// Does everything for a copy of this process that this process can do. The filter of a profile in a file
    /// may forbid what is left to do, and is the copy's last step where --no-new-privs lets it be.
    pub fn for_copy(args: &Args, program: &[OsString], place: Place, host: Host) -> Result<Self> {
        let name = program.first().ok_or_else(|| Error::usage("no program given to run"))?;
        prepare(args, name, place, host, By::Copy)
    }

    /// Does the rest as that copy; `life` ties it to the waiting link. Returns only an error.
    pub fn finish(self, program: &[OsString], life: &Lifeline) -> Error {
        let settle = || {
            if self.leads {
                setsid().op("setsid")?;
            }
            self.console.as_ref().map_or(Ok(()), Console::set_controlling)?;
            life.hold(SIGKILL)?;
            self.filter.iter().try_for_each(Filter::install)
        };
        match (settle(), program.split_first()) {
            (Err(error), _) => error,
            (Ok(()), Some((name, rest))) => self.execute(name, rest),
            (Ok(()), None) => Error::usage("no program given to run"),
        }
    }

    /// Returns only an error.
    fn execute(self, name: &OsStr, rest: &[OsString]) -> Error {
        let mut command = Command::new(self.path);
        command.arg0(name).args(rest);
        self.environment.apply(&mut command);
        replace(&mut command)
    }
}

fn prepare(args: &Args, name: &OsStr, place: Place, mut host: Host, by: By) -> Result<Ready> {
    let identity = args.user.as_deref().map(|user| user::find(user, &place.root)).transpose()?;
    let groups = match host.groups_stay && args.groups.is_empty() {
        true => None,
        false => groups(args, identity.as_ref(), &place.root)?,
    };
    let mut environment = Environment::new(&args.environment, &host.variables);
    if !environment.has_home() {
        // The user's, when nothing else says what it is, as in every container runtime.
        let uid = identity.as_ref().map_or_else(|| Uid::current().as_raw(), |user| user.uid);
        environment.set("HOME", Some(user::home(uid, &place.root)?.into()));
    }
    start_in(&place)?;
    if let Some(console) = &host.console {
        console.set_owner(identity.as_ref().map(|user| user.uid))?;
        if matches!(by, By::This(_)) {
            console.set_controlling()?;
        }
    }
    args.ulimits.iter().try_for_each(Ulimit::apply)?;
    // A filter needs a privilege, or the promise to gain none. The promise is better: this process
    // itself then needs no system call of it but the last ones.
    if !args.no_new_privs {
        host.filter.take().iter().try_for_each(Filter::install)?;
    }
    host.sets.iter().try_for_each(PayloadSets::drop_bounding)?;
    become_user(identity.as_ref(), groups.as_deref())?;
    host.sets.iter().try_for_each(PayloadSets::set_others)?;
    match (identity, &by) {
        (None, _) | (_, By::Copy) => {}
        (Some(_), By::This(Some(life))) => life.hold(SIGKILL)?,
        (Some(_), By::This(None)) => host.parent.die_with()?,
    }
    let path = find(name, environment.path())?;
    if let Some(exe) = host.exe {
        exe.refuse(&path)?;
    }
    sys::default_signals().op("rt_sigaction")?;
    if args.no_new_privs {
        set_no_new_privs(true).op("PR_SET_NO_NEW_PRIVS")?;
        if matches!(by, By::This(_)) || args.seccomp == Seccomp::Default {
            host.filter.take().iter().try_for_each(Filter::install)?;
        }
    }
    let (leads, console, filter) = (leads(args), host.console, host.filter);
    Ok(Ready { path, environment, leads, console, filter })
}

/// Enters the working directory, and makes sure that it is one of this root: the kernel calls others
/// unreachable (CVE-2024-21626 was one).
fn start_in(place: &Place) -> Result<()> {
    fchdir(&place.workdir).on("chdir", &place.path)?;
    let path = getcwd(Vec::new()).op("getcwd")?;
    match path.as_bytes().starts_with(b"/") {
        true => Ok(()),
        false => Err(Error::new("chdir: the working directory is outside of the root")),
    }
}

/// The supplementary groups that the payload is to have; nothing if they stay as they are.
fn groups(
    args: &Args,
    identity: Option<&Identity>,
    root: &ContainerRoot,
) -> Result<Option<Vec<Gid>>> {
    let mut groups: Vec<Gid> = match identity {
        Some(identity) => identity.groups.iter().map(|gid| Gid::from_raw(*gid)).collect(),
        None if args.groups.is_empty() => return Ok(None),
        None => getgroups().op("getgroups")?,
    };
    for gid in user::group_ids(&args.groups, root)?.into_iter().map(Gid::from_raw) {
        if !groups.contains(&gid) {
            groups.push(gid);
        }
    }
    Ok(Some(groups))
}

fn become_user(identity: Option<&Identity>, groups: Option<&[Gid]>) -> Result<()> {
    let hint = |e: Error| e.hint("changing user needs CAP_SETUID and CAP_SETGID, and mapped IDs");
    if let Some(groups) = groups {
        setgroups(groups).op("setgroups").map_err(hint)?;
    }
    let Some(identity) = identity else { return Ok(()) };
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    setresgid(gid, gid, gid).on("setresgid", gid.to_string()).map_err(hint)?;
    setresuid(uid, uid, uid).on("setresuid", uid.to_string()).map_err(hint)
}

/// The kernel forgets PR_SET_PDEATHSIG when credentials change. This sets it again, and finds out
/// whether the parent died in between, through a procfs that sees the parent: a PID namespace's own
/// shows no parent of its PID 1.
struct Parent {
    signal: Option<Signal>,
    stat: Option<(Stat, u32)>,
}

impl Parent {
    /// Notes the parent that is to take this process along when it dies, if any is; and who this process
    /// is, if that is asked for.
    fn note(asked: bool) -> Result<(Self, Option<Process>)> {
        let signal = parent_process_death_signal().op("PR_GET_PDEATHSIG")?;
        if signal.is_none() && !asked {
            return Ok((Self { signal, stat: None }, None));
        }
        let stat = Stat::open()?;
        let (this, parent) = stat.read()?;
        Ok((Self { signal, stat: signal.map(|_| (stat, parent)) }, Some(this)))
    }

    fn die_with(self) -> Result<()> {
        let Some((stat, parent)) = self.stat else { return Ok(()) };
        set_parent_process_death_signal(self.signal).op("PR_SET_PDEATHSIG")?;
        match stat.read()? {
            (_, still) if still == parent => Ok(()),
            _ => Err(Error::new("the parent died")),
        }
    }
}
