//! `--status-fd`: what the network has become, as one line of JSON.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use ipnetwork::IpNetwork;
use jc_unshare::{Context, Error, Result, strerror, sys};
use rustix::io::write;
use serde_json::{Value, json};

use crate::ports::Forward;

/// The descriptor to which it is written. The program does not get it.
pub struct StatusFd(OwnedFd);

impl StatusFd {
    /// Takes a descriptor that was handed down by number.
    pub fn take(number: u32) -> Result<Self> {
        if number <= 2 {
            let message = format!("--status-fd {number}: that one is the program's");
            return Err(Error::usage(message));
        }
        let taken = sys::take_fd(number);
        taken
            .map(Self)
            .map_err(|e| Error::usage(format_args!("--status-fd {number}: {}", strerror(&e))))
    }

    /// Writes the line, and closes.
    pub fn tell(self, status: &Value) -> Result<()> {
        let line = format!("{status}\n");
        let mut left = line.as_bytes();
        while !left.is_empty() {
            let written = write(&self.0, left).op("write --status-fd")?;
            left = &left[written..];
        }
        Ok(())
    }
}

/// Addresses with their prefixes.
pub fn networks(networks: impl Iterator<Item = IpNetwork>) -> Value {
    networks.map(|network| network.to_string()).collect()
}

/// Addresses.
pub fn addresses(addresses: impl Iterator<Item = IpAddr>) -> Value {
    addresses.map(|address| address.to_string()).collect()
}

/// Published ports.
pub fn ports(forwards: &[Forward]) -> Value {
    let one = |forward: &Forward| {
        json!({
            "protocol": forward.protocol.name(),
            "host-address": forward.host.to_string(),
            "host-port": forward.host_port,
            "port": forward.port,
        })
    };
    forwards.iter().map(one).collect()
}
