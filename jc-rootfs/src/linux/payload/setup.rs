//! Preparations that need the host's root: its files, and this process as the host's procfs shows it.

use std::os::fd::{BorrowedFd, OwnedFd};

use jc_unshare::early_network::Receiver;
use jc_unshare::info;
use jc_unshare::process::{Process, Stat};
use jc_unshare::{Absent, Context, Error, Result};
use nix::libc;
use rustix::process::{
    Signal, parent_process_death_signal, set_parent_process_death_signal, setsid,
};

use super::caps::{self, PayloadSets};
use super::console::Console;
use super::gate::Gates;
use super::init::Init;
use super::program::SelfExe;
use super::started::Started;
use crate::environment::Variable;
use crate::linux::args::Args;
use crate::linux::seccomp::{Filter, Seccomp};
use crate::linux::socket::connect_to;
use crate::linux::sys;
use crate::linux::trace::attach::Attachment;

/// The results of the preparations.
pub struct Setup {
    pub(super) parent: Parent,
    /// The parent of `--die-with-parent`.
    pub(super) last_parent: Option<LastParent>,
    /// The variables of `--env-file`.
    pub(super) variables: Vec<Variable>,
    pub(super) sets: Option<PayloadSets>,
    pub(super) filter: Option<Filter>,
    /// The PID of the payload on the host, if this process becomes the payload.
    pub payload: Option<u32>,
    /// The filter of a recorder.
    pub(super) recorder: Option<Attachment>,
    pub(super) exe: Option<SelfExe>,
    /// Whether a change of the user leaves the supplementary groups as they are.
    pub(super) keeps_groups: bool,
    /// The socket to which the master side of the console goes.
    socket: Option<OwnedFd>,
    console_size: Option<(u16, u16)>,
    pub(super) console: Option<Console>,
    /// The channel for the event `started`.
    pub started: Option<Started>,
    /// The PID 1 to execute in place of the payload.
    pub init: Option<Init>,
    /// The points at which this process waits for the caller.
    pub gates: Gates,
    /// The socket of `--net-fd`, until the namespace is entered.
    network: Option<Receiver>,
}

impl Setup {
    /// Prepares this process, before its root changes.
    pub fn new(args: &Args) -> Result<Self> {
        let gates = args.gates.gates.iter().map(|(_, number)| ("--gate", Some(*number)));
        info::check_distinct(gates.chain([
            ("--net-fd", args.net_fd),
            ("--status-fd", args.status_fd),
            ("--init-fd", args.process.init_fd),
            ("--trace-fd", args.process.trace_fd),
        ]))?;
        sys::close_on_exec_from(3 + args.preserve_fds).op("close_range")?;
        leave_session_keyring()?;
        let needs_process = args.status_fd.is_some() || args.gates.needs_process();
        let (parent, this) = Parent::find(needs_process)?;
        let gates = Gates::open(&args.gates, this)?;
        let network = args.net_fd.map(Receiver::inherit).transpose()?;
        let last_parent = args.process.die_with_parent.map(LastParent::open).transpose()?;
        let started = args.status_fd.zip(this);
        let started = started.map(|(number, this)| Started::open(number, this)).transpose()?;
        args.attributes.apply_on_host()?;
        let socket = args.process.console_socket.as_deref().map(connect_to).transpose()?;
        let variables = args.environment.read_files()?;
        let sets = args.caps.sets()?;
        let mut filter = match (&args.seccomp, sets) {
            (Seccomp::Unconfined, _) => None,
            (seccomp, Some(sets)) => seccomp.filter(sets.bounding)?,
            (seccomp, None) => seccomp.filter(caps::permitted()?.bits())?,
        };
        let recorder = args.process.trace_fd.map(Attachment::open).transpose()?;
        if recorder.is_some() && filter.as_ref().is_some_and(Filter::has_agent) {
            return Err(Error::usage("--trace-fd: the profile has SCMP_ACT_NOTIFY")
                .hint("the kernel allows one listener"));
        }
        if let Some(filter) = &mut filter {
            filter.connect(|| match args.process.join {
                Some(_) => args.gates.given_state().filter(|_| args.process.no_wait),
                None => gates.state("creating"),
            })?;
        }
        let exe = SelfExe::find()?;
        let keeps_groups = args.user.is_some() && args.groups.is_empty() && denies_setgroups()?;
        let (console, init) = (None, None);
        Ok(Self {
            parent,
            last_parent,
            variables,
            sets,
            filter,
            payload: this.map(|this| this.pid),
            recorder,
            exe,
            keeps_groups,
            socket,
            console_size: args.process.console_size,
            console,
            started,
            init,
            gates,
            network,
        })
    }

    /// Begins a session, if the payload leads one. EPERM: this process leads a process group.
    pub fn begin_session(&self, args: &Args) -> Result<()> {
        if args.leads_session() { setsid().op("setsid").map(drop) } else { Ok(()) }
    }

    /// Enters the namespace of `--net-fd`, unless this process has entered it. A sysfs shows the network namespace of the
    /// process that creates it.
    pub fn enter_network(&mut self) -> Result<()> {
        self.network.take().map_or(Ok(()), Receiver::enter)
    }

    /// Opens the console of `--console-socket`, in a root that has its devpts. If `bind`, the console is also
    /// mounted on /dev/console.
    pub fn open_console(&mut self, root: BorrowedFd<'_>, bind: bool) -> Result<()> {
        let Some(socket) = self.socket.take() else { return Ok(()) };
        self.console = Some(Console::open(root, &socket, bind, self.console_size)?);
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

/// Replaces the session keyring, since the payload must not read the caller's keys.
fn leave_session_keyring() -> Result<()> {
    match sys::new_session_keyring() {
        // The kernel has no keyrings, or a filter denies them to this process and all its programs.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => Ok(()),
        other => other.op("keyctl").map_err(|e| e.hint("see the sysctls kernel.keys.*")),
    }
}

/// The parent of this process at the execution of the payload, by its PID in the host's procfs.
pub(super) struct LastParent {
    stat: Stat,
    pid: u32,
}

impl LastParent {
    fn open(pid: u32) -> Result<Self> {
        Ok(Self { stat: Stat::open()?, pid })
    }

    /// Ties the payload to its parent. An error if the parent is another process, as after its death.
    pub(super) fn bind(&self) -> Result<()> {
        set_parent_process_death_signal(Some(Signal::KILL)).op("PR_SET_PDEATHSIG")?;
        match self.stat.read()? {
            (_, parent) if parent == self.pid => Ok(()),
            (_, parent) => {
                let pid = self.pid;
                Err(Error::new(format_args!("--die-with-parent {pid}: the parent is {parent}")))
            }
        }
    }
}

/// The parent of this process, and the signal that the parent's death sends (PR_SET_PDEATHSIG). A change of
/// credentials clears the signal. The parent is identified in a procfs of the host, because the procfs of a PID
/// namespace shows no parent of its PID 1.
pub(super) struct Parent {
    signal: Option<Signal>,
    stat: Option<(Stat, u32)>,
}

impl Parent {
    /// Finds the parent, if its death sends a signal. Also finds this process if there is a signal or
    /// `needs_process`.
    fn find(needs_process: bool) -> Result<(Self, Option<Process>)> {
        let signal = parent_process_death_signal().op("PR_GET_PDEATHSIG")?;
        if signal.is_none() && !needs_process {
            return Ok((Self { signal, stat: None }, None));
        }
        let stat = Stat::open()?;
        let (this, parent) = stat.read()?;
        Ok((Self { signal, stat: signal.map(|_| (stat, parent)) }, Some(this)))
    }

    /// Sets the signal again after a change of credentials. An error if the parent has died in between.
    pub(super) fn die_with(&self) -> Result<()> {
        let Some((stat, parent)) = &self.stat else { return Ok(()) };
        set_parent_process_death_signal(self.signal).op("PR_SET_PDEATHSIG")?;
        match stat.read()? {
            (_, still) if still == *parent => Ok(()),
            _ => Err(Error::new("the parent died")),
        }
    }
}
