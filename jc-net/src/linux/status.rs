//! Members of the event `network` (jc(7)).

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::{Value, json};

use crate::linux::ports::Forward;

/// Addresses with prefix lengths for the member `addresses`.
pub fn networks(networks: impl Iterator<Item = IpNetwork>) -> Value {
    networks.map(|network| network.to_string()).collect()
}

/// Addresses for the member `gateways`.
pub fn addresses(addresses: impl Iterator<Item = IpAddr>) -> Value {
    addresses.map(|address| address.to_string()).collect()
}

/// Objects for the member `ports`.
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
