//! The child: it makes the namespaces from inside, hands its sockets out, and becomes the program.

use std::fs;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ipnetwork::IpNetwork;
use jc_unshare::capability::SYS_ADMIN;
use jc_unshare::events::{StatusFd, exec_reporting};
use jc_unshare::hints::{advise, capable};
use jc_unshare::process::Process;
use jc_unshare::rights;
use jc_unshare::supervise::{Child, Exit, Lifeline, NewChild};
use jc_unshare::sys::clone;
use jc_unshare::{Context, Error, Maps, Result};
use nix::sys::signal::Signal;
use rustix::net::RecvFlags;
use serde_json::json;

use super::inside::{self, Sockets};
use super::names::{OWN_V4, OWN_V6};
use super::{Args, bare};
use crate::EGRESS;
use crate::linux::status;

/// A child that is ready to become the program.
pub struct Started {
    /// The child, which waits for the gate.
    pub child: Child,
    /// The sockets of its network namespace.
    pub sockets: Sockets,
    /// The gate behind which the child becomes the program.
    pub gate: Gate,
}

/// Holds the child back until it is opened.
pub struct Gate(PipeWriter);

impl Gate {
    /// Opens the gate: the child becomes the program.
    pub fn open(&mut self) -> Result<()> {
        self.0.write_all(b"!").op("release the program")
    }
}

/// Starts the child, and waits until its namespaces are set up. The result is an exit if the child has failed and
/// written the error.
pub fn start(args: &Args, status: Option<StatusFd>) -> Result<std::result::Result<Started, Exit>> {
    let flags = flags(args);
    let (mut wait, open) = pipe().op("pipe")?;
    let (ours, theirs) = rights::sockets()?;
    let maps = Maps::identity()?;
    let child = NewChild::of(EGRESS)
        .in_namespaces(flags)
        .spawn(|life| {
            let child =
                Inside { args, has_own_user: flags & clone::NEWUSER != 0, maps: &maps, life };
            child.become_program(&theirs, &mut wait, status)
        })
        .map_err(advise(flags))?
        .reporting(status);
    drop((theirs, wait));
    let Some(sockets) = receive(ours.as_fd())? else {
        return child.reap().map(Err);
    };
    if !args.only_network && !maps.is_self_writable() {
        maps.write_for(child.proc_number()?)?;
    }
    Ok(Ok(Started { child, sockets, gate: Gate(open) }))
}

/// The namespaces that the child begins in. Without CAP_SYS_ADMIN, only a user namespace may have others; with
/// it, those belong to the present one.
fn flags(args: &Args) -> u64 {
    let mounts = if args.only_network { 0 } else { clone::NEWNS };
    let user = if args.only_network || capable(SYS_ADMIN) { 0 } else { clone::NEWUSER };
    clone::NEWNET | mounts | user
}

/// The work of the child.
struct Inside<'a> {
    args: &'a Args,
    has_own_user: bool,
    maps: &'a Maps,
    life: &'a Lifeline,
}

impl Inside<'_> {
    /// Returns only an error.
    fn become_program(
        &self,
        out: &OwnedFd,
        wait: &mut PipeReader,
        status: Option<StatusFd>,
    ) -> Error {
        let prepared = self.prepare(out, wait, status);
        prepared.err().unwrap_or_else(|| exec_reporting(status, &self.args.program))
    }

    fn prepare(
        &self,
        out: &OwnedFd,
        wait: &mut PipeReader,
        status: Option<StatusFd>,
    ) -> Result<()> {
        if self.has_own_user {
            self.maps.write_own()?;
        }
        let sockets = inside::set_up(self.args.log.is_some())?;
        self.write_files(&sockets, status)?;
        if !self.args.only_network {
            bare::cover()?;
            bare::enter_user_namespace()?;
            if self.maps.is_self_writable() {
                self.maps.write_own()?;
            }
        }
        send(out.as_fd(), sockets)?;
        // The parent has written the error, or is dead.
        wait.read_exact(&mut [0]).map_err(|_| Error::quiet())?;
        if !self.args.only_network {
            bare::confine(self.args.preserve_fds.unwrap_or(0))?;
        }
        // Changes of credentials have disarmed it.
        self.life.arm(Signal::SIGKILL)?;
        status.map_or(Ok(()), |status| status.started(Process::this()?))
    }

    fn write_files(&self, sockets: &Sockets, status: Option<StatusFd>) -> Result<()> {
        let has_v6 = sockets.listeners.len() > 1;
        let v6 = has_v6.then_some(IpAddr::from(OWN_V6));
        let addresses: Vec<IpAddr> = [IpAddr::from(OWN_V4)].into_iter().chain(v6).collect();
        if let Some(path) = &self.args.resolv_conf {
            fs::write(path, bare::NAME_SERVER).on("write", path)?;
        }
        self.args.hosts.iter().try_for_each(|line| line.append(&addresses))?;
        let Some(status) = status else { return Ok(()) };
        let networks = addresses.iter().copied().map(IpNetwork::from);
        let network = json!({"network": "egress", "addresses": status::networks(networks)});
        status.report("network", &network.to_string())
    }
}

/// Sends the sockets: of each family the listener and the resolver, then that of rejected packets, if there is one.
fn send(to: BorrowedFd<'_>, sockets: Sockets) -> Result<()> {
    let pairs = sockets.listeners.iter().zip(&sockets.resolvers);
    let pairs = pairs.flat_map(|(a, b)| [a.as_fd(), b.as_fd()]);
    let fds: Vec<BorrowedFd<'_>> = pairs.chain(sockets.packets.as_ref().map(AsFd::as_fd)).collect();
    rights::send(to, &fds, b"!")
}

/// Receives the sockets. `None`: the child has ended.
fn receive(from: BorrowedFd<'_>) -> Result<Option<Sockets>> {
    let mut all = rights::receive(from, RecvFlags::empty())?;
    if all.is_empty() {
        return Ok(None);
    }
    let packets = if all.len() % 2 == 1 { all.pop() } else { None };
    let mut sockets = Sockets { packets, ..Sockets::default() };
    for (place, fd) in all.into_iter().enumerate() {
        let list = if place % 2 == 0 { &mut sockets.listeners } else { &mut sockets.resolvers };
        list.push(fd);
    }
    Ok(Some(sockets))
}
