//! Actions without a program: the list of connected containers, the removal of leftovers, the repair of rules.

use std::fmt::Write as _;

use jc_unshare::{Error, Result, print};
use serde_json::{Value, json};

use crate::linux::host::Host;
use crate::linux::link::{self, Link};
use crate::linux::netlink::Socket;
use crate::linux::ports::Forward;
use crate::linux::{bridge, lease, lock, record, rules, status, sys};

/// A container on a bridge.
struct Connected {
    link: Link,
    bridge: String,
    addresses: Vec<String>,
    ports: Vec<Forward>,
}

/// `--list`: prints a line for each container on a bridge, in the order of the addresses.
pub fn list(host: &Host, as_json: bool) -> Result<()> {
    let links = links(&host.route)?;
    let mut all = Vec::new();
    for link in &links {
        let of =
            |bridge: &&Link| link.master == Some(bridge.index) && record::is_own_bridge(bridge);
        let bridge = links.iter().find(of);
        let (Some(bridge), Some((v4, v6))) = (bridge, lease::addresses_of(link)) else { continue };
        if link::is_dying(&host.route, link)? {
            continue;
        }
        let addresses = [Some(v4.to_string()), v6.map(|v6| v6.to_string())];
        all.push(Connected {
            link: link.clone(),
            bridge: bridge.name.clone(),
            addresses: addresses.into_iter().flatten().collect(),
            ports: rules::published(&host.netfilter, &link.name)?,
        });
    }
    // A name contains the address in a fixed number of digits.
    all.sort_by(|a, b| a.link.name.cmp(&b.link.name));
    print(
        all.iter().map(if as_json { Connected::json } else { Connected::line }).collect::<String>(),
    )
}

impl Connected {
    fn json(&self) -> String {
        let object: Value = json!({
            "bridge": self.bridge,
            "host-interface": self.link.name,
            "addresses": self.addresses,
            "ports": status::ports(&self.ports),
        });
        format!("{object}\n")
    }

    fn line(&self) -> String {
        let mut line = format!("{}\t{}\t{}", self.bridge, self.link.name, self.addresses.join(" "));
        for (i, port) in self.ports.iter().enumerate() {
            let separator = if i == 0 { '\t' } else { ' ' };
            let host = std::net::SocketAddr::new(port.host, port.host_port);
            // Writing to a String cannot fail.
            let _: std::fmt::Result =
                write!(line, "{separator}{host}->{}/{}", port.port, port.protocol.name());
        }
        line + "\n"
    }
}

fn links(socket: &Socket) -> Result<Vec<Link>> {
    link::list(socket, None).map_err(|error| error.during("list links"))
}

/// Removes the veths of ended containers from a bridge. Returns a port that remains.
fn remove_dying<'a>(socket: &Socket, links: &'a [Link], bridge: &Link) -> Result<Option<&'a Link>> {
    let mut ports: Vec<&Link> =
        links.iter().filter(|link| link.master == Some(bridge.index)).collect();
    // Sockets keep the namespace of a container that has just ended for an RCU grace period.
    for wait in [false, true] {
        if wait && !ports.is_empty() {
            sys::wait_for_grace_period();
        }
        let mut alive = Vec::new();
        for port in ports {
            if !link::remove_if_dying(socket, port)? {
                alive.push(port);
            }
        }
        ports = alive;
    }
    Ok(ports.first().copied())
}

/// `--gc`: removes leftovers of ended containers, bridges without containers, and rules without a bridge. The removal
/// continues after an error, and the first error is the result.
pub fn collect(host: &Host) -> Result<()> {
    host.lock.change_bridges()?;
    let links = links(&host.route)?;
    let mut first = Ok(());
    let mut keep = Vec::new();
    for bridge in links.iter().filter(|link| record::is_own_bridge(link)) {
        let outcome = match remove_dying(&host.route, &links, bridge) {
            Ok(None) => bridge::remove(host, bridge),
            alive => {
                keep.push(&bridge.name);
                alive.map(|_| ())
            }
        };
        first = first.and(outcome);
    }
    for bridge in rules::bridges(&host.netfilter)? {
        if !keep.contains(&&bridge) {
            first = first.and(rules::remove(&host.netfilter, &bridge));
        }
    }
    first.and(lock::sweep())
}

/// `--repair`: restores the rules of each bridge that is up, after a firewall has removed them.
pub fn repair(host: &Host) -> Result<()> {
    host.lock.change_bridges()?;
    let links = links(&host.route)?;
    let mut first = Ok(());
    for bridge in links.iter().filter(|link| link.up && record::is_own_bridge(link)) {
        first = first.and(bridge::repair(host, bridge));
    }
    first
}

/// `--rm-bridge`: removes a bridge of jc-net and its rules. A bridge with containers, and another link, are errors.
pub fn remove_bridge(host: &Host, name: &str) -> Result<()> {
    host.lock.change_bridges()?;
    let links = links(&host.route)?;
    let Some(bridge) = links.iter().find(|link| link.name == name) else {
        return Err(Error::new(format_args!("remove {name}: No such device")));
    };
    if !record::is_own_bridge(bridge) {
        return Err(Error::new(format_args!("remove {name}: not a bridge that jc-net has made")));
    }
    if let Some(port) = remove_dying(&host.route, &links, bridge)? {
        let message = format!("remove {name}: {} is connected to it", port.name);
        return Err(Error::new(message).hint("jc-net --list shows the containers"));
    }
    bridge::remove(host, bridge)
}
