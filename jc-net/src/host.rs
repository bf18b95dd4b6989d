//! The network namespace from which containers are plugged in: its sockets, opened before this
//! process goes elsewhere.

use std::io::Write;

use jc_unshare::Result;

use crate::TOOL;
use crate::lock::Lock;
use crate::netlink::Socket;

/// What is needed of the host's network namespace.
pub struct Host {
    /// Links, addresses, routes.
    pub route: Socket,
    /// nf_tables.
    pub netfilter: Socket,
    /// nf_tables, for work after the rules of published ports have ended with `netfilter`.
    pub late: Option<Socket>,
    /// Keeps bridges from changing.
    pub lock: Lock,
    verbose: bool,
}

impl Host {
    /// The present namespace.
    pub fn open(verbose: bool) -> Result<Self> {
        Ok(Self {
            route: Socket::route()?,
            netfilter: Socket::netfilter()?,
            late: None,
            lock: Lock::default(),
            verbose,
        })
    }

    /// Tells of a change to the host, to who wants to know.
    pub fn say(&self, what: impl std::fmt::Display) {
        if self.verbose {
            // Nobody reads it: then nobody wanted to know.
            let _: std::io::Result<()> = writeln!(std::io::stderr(), "{}: {what}", TOOL.name());
        }
    }
}
