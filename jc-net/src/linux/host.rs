//! The host's network namespace, through sockets that are opened before this process enters another one.

use std::io::Write;

use jc_unshare::Result;

use crate::TOOL;
use crate::linux::lock::Lock;
use crate::linux::netlink::Socket;

/// Access to the host's network namespace.
pub struct Host {
    /// The socket for links, addresses and routes.
    pub route: Socket,
    /// The socket for nf_tables.
    pub netfilter: Socket,
    /// A second socket for netfilter. The rules of published ports end with `netfilter`, and their connections are deleted
    /// afterwards.
    pub late: Option<Socket>,
    /// The lock on the bridges.
    pub lock: Lock,
    verbose: bool,
}

impl Host {
    /// Opens the sockets in this network namespace.
    pub fn open(verbose: bool) -> Result<Self> {
        Ok(Self {
            route: Socket::route()?,
            netfilter: Socket::netfilter()?,
            late: None,
            lock: Lock::default(),
            verbose,
        })
    }

    /// Writes a line about a change to the host, with `--verbose`.
    pub fn say(&self, what: impl std::fmt::Display) {
        if self.verbose {
            // The line is informative only.
            let _: std::io::Result<()> = writeln!(std::io::stderr(), "{}: {what}", TOOL.name());
        }
    }
}
