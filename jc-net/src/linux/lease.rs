//! Leases of addresses. The name of a veth on the host contains the IPv4 address of the container, and its alternative
//! name the IPv6 address. Names are unique in a network namespace, so no two containers have the same address, and a
//! lease ends with its veth.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread::sleep;
use std::time::Duration;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use jc_unshare::id::random_bytes;
use jc_unshare::{Error, Result};
use rustix::io::Errno;

use crate::linux::bridge::Bridge;
use crate::linux::host::Host;
use crate::linux::link::{self, Link, Mac, Pair, PortFlag};
use crate::linux::netlink::NetlinkError;
use crate::linux::{rules, subnet};

/// The name of the link in the container.
pub const INSIDE: &str = "eth0";

/// The properties of a veth that the command line requires.
#[derive(Clone, Copy, Debug)]
pub struct LeaseSpec {
    /// The IPv4 address of the container.
    pub ip: Option<Ipv4Addr>,
    /// The IPv6 address of the container.
    pub ip6: Option<Ipv6Addr>,
    /// The hardware address of the container.
    pub mac: Option<Mac>,
    /// Whether the container reaches its own published ports.
    pub hairpin: bool,
}

/// A veth whose end on the host is a port of a bridge.
#[derive(Debug)]
pub struct Veth {
    /// The name of the end on the host.
    pub name: String,
    /// The hardware address of the end in the container.
    pub mac: Mac,
    /// The IPv4 address of the container, with the prefix length.
    pub v4: Ipv4Network,
    /// The IPv6 address of the container, with the prefix length, if the bridge has one.
    pub v6: Option<Ipv6Network>,
}

impl Veth {
    /// The addresses of the container, with their prefix lengths.
    pub fn networks(&self) -> impl Iterator<Item = IpNetwork> {
        [Some(IpNetwork::V4(self.v4)), self.v6.map(IpNetwork::V6)].into_iter().flatten()
    }

    /// The names that lease the addresses, in the order of [`addresses`](Self::addresses).
    pub fn names(&self) -> Vec<String> {
        let v6 = self.v6.map(|v6| other_name_of(v6.ip()));
        [Some(self.name.clone()), v6].into_iter().flatten().collect()
    }

    /// The addresses of the container.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.networks().map(|network| network.ip()).collect()
    }
}

/// The name of the end on the host for an IPv4 address.
fn name_of(address: Ipv4Addr) -> String {
    format!("jc{:08x}", u32::from(address))
}

/// The alternative name of the end on the host for an IPv6 address.
fn other_name_of(address: Ipv6Addr) -> String {
    format!("jc{:032x}", u128::from(address))
}

/// The addresses in the names of a link. `None`: the link is no veth of jc-net.
pub fn addresses_of(link: &Link) -> Option<(Ipv4Addr, Option<Ipv6Addr>)> {
    let digits = |name: &str, count: usize| {
        let digits = name.strip_prefix("jc").filter(|digits| digits.len() == count)?;
        // The parser of numbers would accept a sign.
        let digits = Some(digits).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        u128::from_str_radix(digits?, 16).ok()
    };
    let v4 = Ipv4Addr::from(u32::try_from(digits(&link.name, 8)?).ok()?);
    Some((v4, link.others.iter().find_map(|name| digits(name, 32)).map(Ipv6Addr::from)))
}

/// Connects the network namespace of the process `pid` to a bridge. An address that another container has, and a full
/// subnet, are errors.
pub fn connect(host: &Host, bridge: &Bridge, spec: LeaseSpec, pid: u32) -> Result<Veth> {
    spec.check(bridge)?;
    let attempt = Attempt { host, bridge, spec, pid };
    if let Some(ip) = spec.ip {
        return match attempt.with(ip)? {
            Some(veth) => Ok(veth),
            None => Err(in_use(ip.into(), bridge)),
        };
    }
    // A random address of a large subnet is probably free, and needs no list of links.
    const TRIES: usize = 4;
    let hosts = subnet::hosts(bridge.v4);
    for _ in 0..TRIES {
        let distance = hosts.start + random_below(hosts.end - hosts.start)?;
        if let Some(veth) = attempt.with(subnet::at(bridge.v4, distance))? {
            return Ok(veth);
        }
    }
    attempt.with_all()
}

impl LeaseSpec {
    /// Whether another container may have had the address shortly before, which a random address of a large subnet makes
    /// improbable.
    pub fn is_reused(&self, bridge: &Bridge) -> bool {
        const LARGE: usize = 4096;
        self.ip.is_some() || self.ip6.is_some() || subnet::hosts(bridge.v4).len() < LARGE
    }

    /// Checks that the addresses are in the subnets of the bridge.
    fn check(&self, bridge: &Bridge) -> Result<()> {
        let subnet = bridge.v4;
        if let Some(ip) = self.ip {
            let network = u32::from(subnet.network());
            let distance = u32::from(ip).wrapping_sub(network);
            if !subnet.contains(ip) || !subnet::hosts(subnet).contains(&distance) {
                return Err(outside(bridge, ip.into(), subnet.into()));
            }
        }
        if let Some(ip6) = self.ip6 {
            // The caller has already checked that the bridge has IPv6.
            let Some(subnet) = bridge.v6 else { return Ok(()) };
            if !subnet.contains(ip6) || ip6 == subnet.ip() || ip6 == subnet.network() {
                return Err(outside(bridge, ip6.into(), subnet.into()));
            }
        }
        Ok(())
    }
}

fn in_use(address: IpAddr, bridge: &Bridge) -> Error {
    Error::new(format_args!("address {address} is in use on {}", bridge.name))
}

fn outside(bridge: &Bridge, address: IpAddr, subnet: IpNetwork) -> Error {
    Error::new(format_args!(
        "address {address}: not one that {} can give out of {}/{}",
        bridge.name,
        subnet.network(),
        subnet.prefix()
    ))
}

/// A random number below a limit, which is not 0.
fn random_below(limit: u32) -> Result<u32> {
    let number = u32::from_ne_bytes(random_bytes()?);
    Ok(((u64::from(number) * u64::from(limit)) >> 32) as u32)
}

/// The attempts to connect a container, each with another address.
struct Attempt<'a> {
    host: &'a Host,
    bridge: &'a Bridge,
    spec: LeaseSpec,
    pid: u32,
}

impl Attempt<'_> {
    /// Connects the container with this address. `None`: another container has the address.
    fn with(&self, v4: Ipv4Addr) -> Result<Option<Veth>> {
        let bridge = self.bridge;
        let veth = self.veth(v4)?;
        let pair = Pair {
            name: &veth.name,
            bridge: bridge.index,
            pid: self.pid,
            peer: INSIDE,
            mac: veth.mac,
            mtu: bridge.mtu,
            down: bridge.policy.isolate,
        };
        match link::add_pair(&self.host.route, &pair) {
            Err(error) if error.errno == Errno::EXIST => return Ok(None),
            other => other.map_err(|error| connect_error(error, bridge, &veth.name))?,
        }
        if let Some(address) = self.taken(&veth)? {
            self.remove(&veth.name)?;
            return match self.spec.ip6.filter(|_| address.is_ipv6()) {
                Some(v6) => Err(in_use(v6.into(), bridge)),
                None => Ok(None),
            };
        }
        self.set_flags(&veth.name)?;
        Ok(Some(veth))
    }

    /// The properties of the veth for an IPv4 address.
    fn veth(&self, v4: Ipv4Addr) -> Result<Veth> {
        let subnet = self.bridge.v4;
        let [a, b, c, d] = v4.octets();
        let v6 = self.bridge.v6.map(|other| {
            let address =
                self.spec.ip6.unwrap_or_else(|| subnet::with_offset_of(v4, subnet, other));
            Ipv6Network::new(address, other.prefix())
        });
        Ok(Veth {
            name: name_of(v4),
            mac: self.spec.mac.unwrap_or(Mac([0x02, 0x6b, a, b, c, d])),
            v4: Ipv4Network::new(v4, subnet.prefix()).map_err(Error::new)?,
            v6: v6.transpose().map_err(Error::new)?,
        })
    }

    /// The address of the new veth that another container has: in the name of its veth, or in the rules of its published
    /// ports after it has removed its veth.
    fn taken(&self, veth: &Veth) -> Result<Option<IpAddr>> {
        if let Some(v6) = veth.v6.map(|v6| v6.ip()) {
            let name = other_name_of(v6);
            match link::add_name(&self.host.route, &veth.name, &name) {
                Err(error) if error.errno == Errno::EXIST => return Ok(Some(v6.into())),
                other => other.map_err(|r| r.during(format_args!("name {name}")))?,
            }
        }
        for (name, address) in veth.names().iter().zip(veth.addresses()) {
            if rules::has_published(&self.host.netfilter, name)? {
                return Ok(Some(address));
            }
        }
        Ok(None)
    }

    fn set_flags(&self, name: &str) -> Result<()> {
        if self.spec.hairpin {
            self.set_flag(name, PortFlag::Hairpin)?;
        }
        if self.bridge.policy.isolate {
            self.set_flag(name, PortFlag::Isolated)?;
            // The link is set up after the flag is set, so that no packet passes in between.
            let up = self.host.route.ask(link::set_up(self.find(name)?.index));
            up.map_err(|r| r.during(format_args!("set up {name}")))?;
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Result<Link> {
        let found = link::by_name(&self.host.route, name);
        let found = found.map_err(|r| r.during(format_args!("look for {name}")))?;
        found.ok_or_else(|| Error::new(format_args!("{name}: removed meanwhile")))
    }

    fn remove(&self, name: &str) -> Result<()> {
        let link = self.find(name)?;
        let removed = link::remove(&self.host.route, link.index);
        removed.map_err(|r| r.during(format_args!("remove {name}")))
    }

    fn set_flag(&self, name: &str, flag: PortFlag) -> Result<()> {
        let made = link::set_port_flag(&self.host.route, self.find(name)?.index, flag);
        let kind = match flag {
            PortFlag::Isolated => "an isolated port",
            PortFlag::Hairpin => "a hairpin port",
        };
        made.map_err(|r| r.during(format_args!("make {name} {kind}")))
    }

    /// Attempts every address of the subnet that no link names.
    fn with_all(&self) -> Result<Veth> {
        let subnet = self.bridge.v4;
        let doing =
            |r: NetlinkError| r.during(format_args!("list the ports of {}", self.bridge.name));
        // The kernel frees the veths of ended containers asynchronously, so pauses lie between the attempts.
        const PAUSES: [u64; 10] = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256];
        for pause in PAUSES {
            sleep(Duration::from_millis(pause));
            // Names are unique in the namespace, so the list has the links of all bridges.
            let links = link::list(&self.host.route, None).map_err(doing)?;
            let taken: std::collections::HashSet<Ipv4Addr> =
                links.iter().filter_map(addresses_of).map(|(v4, _)| v4).collect();
            let free = subnet::hosts(subnet).map(|distance| subnet::at(subnet, distance));
            for address in free.filter(|address| !taken.contains(address)) {
                if let Some(veth) = self.with(address)? {
                    return Ok(veth);
                }
            }
            for link in links.iter().filter(|link| addresses_of(link).is_some()) {
                link::remove_if_dying(&self.host.route, link)?;
            }
        }
        let count = subnet::hosts(subnet).len();
        let network = subnet.network();
        let prefix = subnet.prefix();
        Err(Error::new(format_args!(
            "subnet {network}/{prefix} of {} is full: all {count} addresses are in use",
            self.bridge.name
        ))
        .hint("--bridge NAME --subnet SUBNET makes another bridge"))
    }
}

fn connect_error(error: NetlinkError, bridge: &Bridge, name: &str) -> Error {
    let errno = error.errno;
    let error = error.during(format_args!("connect {name} to {}", bridge.name));
    match errno {
        Errno::OPNOTSUPP => error.hint("the kernel lacks veth: modprobe veth"),
        Errno::XFULL => error.hint("the kernel gives a bridge 1023 ports: use another --bridge"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_a_link_contain_its_addresses() {
        let (v4, v6) = ("10.88.0.5".parse().unwrap(), "fd00::5".parse().unwrap());
        let link = |name: String, others: Vec<String>| Link {
            index: 1,
            name,
            others,
            kind: String::new(),
            alias: String::new(),
            master: None,
            mtu: 0,
            up: true,
            ready: true,
            without_v6: false,
            peer_namespace: None,
        };
        assert_eq!(name_of(v4), "jc0a580005");
        let both = link(name_of(v4), vec![other_name_of(v6)]);
        assert_eq!(addresses_of(&both), Some((v4, Some(v6))));
        assert_eq!(addresses_of(&link(name_of(v4), vec![])), Some((v4, None)));
        for other in ["jc0", "eth0", "jc0a58000", "jc0a58000g", "jc+a580005"] {
            assert_eq!(addresses_of(&link(other.to_owned(), vec![])), None, "{other}");
        }
    }
}
