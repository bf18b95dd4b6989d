//! What can be done besides running a program: list what is plugged in, and clear away.

use std::fmt::Write as _;

use jc_unshare::{Error, Result, print};
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::host::Host;
use crate::link::{self, Link};
use crate::netlink::{Refusal, Socket};
use crate::ports::Forward;
use crate::{bridge, lease, lock, rules, status, sys};

/// A container that is plugged in.
struct Plugged {
    link: Link,
    bridge: String,
    addresses: Vec<String>,
    ports: Vec<Forward>,
}

/// `--list`: what is plugged in, a line each, in the order of the addresses.
pub fn list(host: &Host, as_json: bool) -> Result<()> {
    let links = links(&host.route)?;
    let mut all = Vec::new();
    for link in &links {
        let of = |bridge: &&Link| link.master == Some(bridge.index) && bridge::is_ours(bridge);
        let bridge = links.iter().find(of);
        let (Some(bridge), Some((v4, v6))) = (bridge, lease::addresses_of(link)) else { continue };
        if is_dying(&host.route, link)? {
            continue;
        }
        let addresses = [Some(v4.to_string()), v6.map(|v6| v6.to_string())];
        all.push(Plugged {
            link: link.clone(),
            bridge: bridge.name.clone(),
            addresses: addresses.into_iter().flatten().collect(),
            ports: rules::published(&host.netfilter, &link.name)?,
        });
    }
    // The names are the addresses in a fixed number of digits.
    all.sort_by(|a, b| a.link.name.cmp(&b.link.name));
    print(all.iter().map(if as_json { Plugged::json } else { Plugged::line }).collect::<String>())
}

impl Plugged {
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
    link::list(socket, None).map_err(|refusal| refusal.during("list links"))
}

fn is_dying(socket: &Socket, cable: &Link) -> Result<bool> {
    let dying = link::is_dying(socket, cable);
    dying
        .map_err(|refusal| refusal.during(format_args!("look for the other end of {}", cable.name)))
}

/// Removes a cable whose container has ended, which the kernel is about to do, and says whether it
/// was one.
pub fn remove_if_dying(socket: &Socket, cable: &Link) -> Result<bool> {
    let dying = is_dying(socket, cable)?;
    if dying {
        gone(link::remove(socket, cable.index), &cable.name)?;
    }
    Ok(dying)
}

/// Removes the cables of ended containers from a bridge, and gives one that remains.
fn clear<'a>(socket: &Socket, links: &'a [Link], bridge: &Link) -> Result<Option<&'a Link>> {
    let mut ports: Vec<&Link> =
        links.iter().filter(|link| link.master == Some(bridge.index)).collect();
    // One that ended just now may still be held by its last sockets, on their way out.
    for wait in [false, true] {
        if wait && !ports.is_empty() {
            sys::wait_for_grace_period();
        }
        let mut alive = Vec::new();
        for port in ports {
            if !remove_if_dying(socket, port)? {
                alive.push(port);
            }
        }
        ports = alive;
    }
    Ok(ports.first().copied())
}

fn gone(outcome: std::result::Result<(), Refusal>, name: &str) -> Result<()> {
    match outcome {
        Err(refusal) if refusal.errno == Errno::NODEV => Ok(()),
        other => other.map_err(|refusal| refusal.during(format_args!("remove {name}"))),
    }
}

/// `--gc`: removes what ended containers have left, bridges that nothing is plugged into, and rules
/// without a bridge. Goes on after an error, and tells the first.
pub fn collect(host: &Host) -> Result<()> {
    host.lock.change_bridges()?;
    let links = links(&host.route)?;
    let mut first = Ok(());
    let mut keep = Vec::new();
    for bridge in links.iter().filter(|link| bridge::is_ours(link)) {
        let outcome = match clear(&host.route, &links, bridge) {
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

/// `--repair`: makes the rules of each bridge that is up anew, for a firewall that has removed them.
pub fn repair(host: &Host) -> Result<()> {
    host.lock.change_bridges()?;
    let links = links(&host.route)?;
    let mut first = Ok(());
    for bridge in links.iter().filter(|link| link.up && bridge::is_ours(link)) {
        first = first.and(bridge::repair(host, bridge));
    }
    first
}

/// `--rm-bridge`: removes a bridge of ours and its rules. It is an error if something is plugged in.
pub fn remove_bridge(host: &Host, name: &str) -> Result<()> {
    host.lock.change_bridges()?;
    let links = links(&host.route)?;
    let Some(bridge) = links.iter().find(|link| link.name == name) else {
        return Err(Error::new(format_args!("remove {name}: No such device")));
    };
    if !bridge::is_ours(bridge) {
        return Err(Error::new(format_args!("remove {name}: not a bridge that jc-net has made")));
    }
    if let Some(port) = clear(&host.route, &links, bridge)? {
        let message = format!("remove {name}: {} is connected to it", port.name);
        return Err(Error::new(message).hint("jc-net --list shows the containers"));
    }
    bridge::remove(host, bridge)
}
