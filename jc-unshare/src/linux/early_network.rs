//! A network namespace that a program creates while the chain which it has started runs. The creation takes a fifth of a
//! start, and costs nothing on another processor. The namespace goes to a link of the chain (`--net-fd`) by a socket.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, fstat, open, stat};
use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::hints::capable;
use super::info::inherit_fd;
use super::namespaces::{enter_network, loopback_up, unshare};
use super::procfs::owns;
use super::rights;
use super::sys::{clone, setns};
use crate::capability::{NET_ADMIN, SYS_ADMIN};
use crate::descriptor::is_same;
use crate::error::{Context, Error, Result};

/// The file of the network namespace of this process.
const OWN: &str = "/proc/self/ns/net";

/// The end of a socket by which a program sends a namespace.
#[derive(Debug)]
pub struct Sender(OwnedFd);

impl Sender {
    /// Whether this process may create a namespace, and enter its own one again afterwards. A link of the chain reports
    /// the lack of a capability.
    pub fn is_possible() -> Result<bool> {
        Ok(capable(SYS_ADMIN) && capable(NET_ADMIN) && owns("net")?)
    }

    /// Makes a sender, and the socket that the chain inherits.
    pub fn new() -> Result<(Self, OwnedFd)> {
        rights::sockets().map(|(sender, receiver)| (Self(sender), receiver))
    }

    /// Creates a namespace with loopback up and sends it. This process, which has one thread, is in its own namespace
    /// again afterwards.
    pub fn send_new(&self) -> Result<()> {
        let own = open_own()?;
        unshare(clone::NEWNET)?;
        let sent = loopback_up().and_then(|()| open_own()).and_then(|new| self.send(&new));
        setns(own.as_fd(), clone::NEWNET).on("setns", OWN)?;
        sent
    }

    fn send(&self, namespace: &OwnedFd) -> Result<()> {
        match rights::send(&self.0, &[namespace.as_fd()], b"net") {
            // The chain has ended, and its exit code says why.
            Err(error) if error.errno() == Some(Errno::PIPE.raw_os_error()) => Ok(()),
            sent => sent,
        }
    }
}

fn open_own() -> Result<OwnedFd> {
    open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).on("open", OWN)
}

/// The end of a socket by which a link receives a namespace.
#[derive(Debug)]
pub struct Receiver {
    socket: OwnedFd,
    number: u32,
}

impl Receiver {
    /// Takes over the socket of `--net-fd`. Usage errors: see [`inherit_fd`].
    pub fn inherit(number: u32) -> Result<Self> {
        inherit_fd(number, "--net-fd").map(|socket| Self { socket, number })
    }

    /// Waits for the namespace, and enters it. The namespace of this process is an error, since the caller would set up
    /// the network of the host.
    pub fn enter(self) -> Result<()> {
        let shown = format!("--net-fd {}", self.number);
        let received = rights::receive(&self.socket, RecvFlags::empty());
        let all = received.map_err(|error| error.context(&shown))?;
        let [namespace] = &all[..] else {
            // The other end has written the error, or is dead.
            return Err(if all.is_empty() {
                Error::quiet()
            } else {
                Error::new(format_args!("{shown}: more than one descriptor"))
            });
        };
        if is_same(&fstat(namespace).on("stat", &shown)?, &stat(OWN).on("stat", OWN)?) {
            return Err(Error::new(format_args!("{shown}: the network of this process")));
        }
        enter_network(namespace, &shown)
    }
}
