//! `--status-fd`: what the network has become, as one line of JSON.

use std::fs::File;
use std::io::Write;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use jc_unshare::{Context, Result, info};
use serde_json::{Value, json};

use crate::ports::Forward;

/// The descriptor to which it is written. The program does not get it.
pub struct StatusFd(File);

impl StatusFd {
    /// Takes a descriptor that was handed down by number.
    pub fn take(number: u32) -> Result<Self> {
        info::take(number, "--status-fd").map(|fd| Self(fd.into()))
    }

    /// Writes the line, and closes.
    pub fn tell(mut self, status: &Value) -> Result<()> {
        self.0.write_all(format!("{status}\n").as_bytes()).op("write --status-fd")
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
