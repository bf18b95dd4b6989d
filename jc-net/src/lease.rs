//! Plugging in: the cable is the lease. The end on the host is named by the container's IPv4 address,
//! and also by its IPv6 address, and the kernel lets a name be given once. So two never have the same
//! address, and none is held by anybody who has gone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread::sleep;
use std::time::Duration;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use jc_unshare::{Context, Error, Result};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::bridge::Bridge;
use crate::host::Host;
use crate::link::{self, Link, Mac, Pair, Trait};
use crate::netlink::Refusal;
use crate::{rules, subnet};

/// What the link in the container is called.
pub const INSIDE: &str = "eth0";

/// What is asked of a cable.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// This IPv4 address.
    pub ip: Option<Ipv4Addr>,
    /// This IPv6 address.
    pub ip6: Option<Ipv6Addr>,
    /// This hardware address.
    pub mac: Option<Mac>,
    /// That the container can reach itself by way of the host.
    pub hairpin: bool,
}

/// A cable that is plugged in.
#[derive(Debug)]
pub struct Cable {
    /// The name of its end on the host.
    pub name: String,
    /// The hardware address of the end in the container.
    pub mac: Mac,
    /// The container's address, with the prefix.
    pub v4: Ipv4Network,
    /// The same for IPv6, if the bridge has it.
    pub v6: Option<Ipv6Network>,
}

impl Cable {
    /// The container's addresses, with their prefixes.
    pub fn networks(&self) -> impl Iterator<Item = IpNetwork> {
        [Some(IpNetwork::V4(self.v4)), self.v6.map(IpNetwork::V6)].into_iter().flatten()
    }

    /// The names that lease the addresses, in the order of [`addresses`](Self::addresses).
    pub fn names(&self) -> Vec<String> {
        let v6 = self.v6.map(|v6| other_name_of(v6.ip()));
        [Some(self.name.clone()), v6].into_iter().flatten().collect()
    }

    /// The container's addresses.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.networks().map(|network| network.ip()).collect()
    }
}

/// The name of the end on the host for an address.
fn name_of(address: Ipv4Addr) -> String {
    format!("jc{:08x}", u32::from(address))
}

/// Its other name.
fn other_name_of(address: Ipv6Addr) -> String {
    format!("jc{:032x}", u128::from(address))
}

/// The addresses that a link's names stand for.
pub fn addresses_of(link: &Link) -> Option<(Ipv4Addr, Option<Ipv6Addr>)> {
    let digits = |name: &str, count: usize| {
        let digits = name.strip_prefix("jc").filter(|digits| digits.len() == count)?;
        // Not a sign, which the parser would take.
        let digits = Some(digits).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        u128::from_str_radix(digits?, 16).ok()
    };
    let v4 = Ipv4Addr::from(u32::try_from(digits(&link.name, 8)?).ok()?);
    Some((v4, link.others.iter().find_map(|name| digits(name, 32)).map(Ipv6Addr::from)))
}

/// Plugs the container whose network namespace the process `pid` is in into a bridge.
pub fn plug(host: &Host, bridge: &Bridge, wanted: Wanted, pid: u32) -> Result<Cable> {
    wanted.check(bridge)?;
    let plan = Plan { host, bridge, wanted, pid };
    if let Some(ip) = wanted.ip {
        return match plan.attempt(ip)? {
            Some(cable) => Ok(cable),
            None => Err(in_use(ip.into(), bridge)),
        };
    }
    // Of a subnet that is mostly free, some address at random is free: nothing has to be listed.
    const TRIES: usize = 4;
    let hosts = subnet::hosts(bridge.v4);
    for _ in 0..TRIES {
        let distance = hosts.start + random_below(hosts.end - hosts.start)?;
        if let Some(cable) = plan.attempt(subnet::at(bridge.v4, distance))? {
            return Ok(cable);
        }
    }
    plan.attempt_all()
}

impl Wanted {
    /// Whether the address may be one that a container had a moment ago. An address at random out of a
    /// large subnet is not.
    pub fn is_reused(&self, bridge: &Bridge) -> bool {
        const LARGE: usize = 4096;
        self.ip.is_some() || self.ip6.is_some() || subnet::hosts(bridge.v4).len() < LARGE
    }

    /// Refuses addresses that the bridge cannot give.
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
            // That the bridge has IPv6 has been seen to.
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

/// A number below a limit that is not 0.
fn random_below(limit: u32) -> Result<u32> {
    let mut bytes = [0; 4];
    getrandom(&mut bytes, GetRandomFlags::empty()).op("getrandom")?;
    Ok(((u64::from(u32::from_ne_bytes(bytes)) * u64::from(limit)) >> 32) as u32)
}

struct Plan<'a> {
    host: &'a Host,
    bridge: &'a Bridge,
    wanted: Wanted,
    pid: u32,
}

impl Plan<'_> {
    /// Plugs in with this address, if nobody has the address.
    fn attempt(&self, v4: Ipv4Addr) -> Result<Option<Cable>> {
        let bridge = self.bridge;
        let cable = self.cable(v4)?;
        let pair = Pair {
            name: &cable.name,
            bridge: bridge.index,
            pid: self.pid,
            peer: INSIDE,
            mac: cable.mac,
            mtu: bridge.mtu,
            down: bridge.policy.isolate,
        };
        match link::add_pair(&self.host.route, &pair) {
            Err(refusal) if refusal.errno == Errno::EXIST => return Ok(None),
            other => other.map_err(|refusal| unplugged(refusal, bridge, &cable.name))?,
        }
        if let Some(address) = self.taken(&cable)? {
            self.unplug(&cable.name)?;
            return match self.wanted.ip6.filter(|_| address.is_ipv6()) {
                Some(v6) => Err(in_use(v6.into(), bridge)),
                None => Ok(None),
            };
        }
        self.set_traits(&cable.name)?;
        Ok(Some(cable))
    }

    /// The cable of a container with this IPv4 address.
    fn cable(&self, v4: Ipv4Addr) -> Result<Cable> {
        let subnet = self.bridge.v4;
        let [a, b, c, d] = v4.octets();
        let v6 = self.bridge.v6.map(|other| {
            let address = self.wanted.ip6.unwrap_or_else(|| subnet::beside(v4, subnet, other));
            Ipv6Network::new(address, other.prefix())
        });
        Ok(Cable {
            name: name_of(v4),
            mac: self.wanted.mac.unwrap_or(Mac([0x02, 0x6b, a, b, c, d])),
            v4: Ipv4Network::new(v4, subnet.prefix()).map_err(Error::new)?,
            v6: v6.transpose().map_err(Error::new)?,
        })
    }

    /// The address of a cable that somebody else has: by the name of another cable, or because the ports
    /// of a container that has removed its cable still lead to the address.
    fn taken(&self, cable: &Cable) -> Result<Option<IpAddr>> {
        if let Some(v6) = cable.v6.map(|v6| v6.ip()) {
            let name = other_name_of(v6);
            match link::add_name(&self.host.route, &cable.name, &name) {
                Err(refusal) if refusal.errno == Errno::EXIST => return Ok(Some(v6.into())),
                other => other.map_err(|r| r.during(format_args!("name {name}")))?,
            }
        }
        for (name, address) in cable.names().iter().zip(cable.addresses()) {
            if rules::has_published(&self.host.netfilter, name)? {
                return Ok(Some(address));
            }
        }
        Ok(None)
    }

    fn set_traits(&self, name: &str) -> Result<()> {
        if self.wanted.hairpin {
            self.make(name, Trait::Hairpin)?;
        }
        if self.bridge.policy.isolate {
            self.make(name, Trait::Isolated)?;
            // Only now: nothing got through in between.
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

    fn unplug(&self, name: &str) -> Result<()> {
        let link = self.find(name)?;
        let removed = link::remove(&self.host.route, link.index);
        removed.map_err(|r| r.during(format_args!("remove {name}")))
    }

    fn make(&self, name: &str, what: Trait) -> Result<()> {
        let made = link::make(&self.host.route, self.find(name)?.index, what);
        let kind = match what {
            Trait::Isolated => "an isolated port",
            Trait::Hairpin => "a hairpin port",
        };
        made.map_err(|r| r.during(format_args!("make {name} {kind}")))
    }

    /// Tries every address that nobody has.
    fn attempt_all(&self) -> Result<Cable> {
        let subnet = self.bridge.v4;
        let doing = |r: Refusal| r.during(format_args!("list the ports of {}", self.bridge.name));
        // What containers that have ended had is free when the kernel comes to it.
        const PAUSES: [u64; 10] = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256];
        for pause in PAUSES {
            sleep(Duration::from_millis(pause));
            // Not only the bridge's: a name is given once, whoever has it.
            let links = link::list(&self.host.route, None).map_err(doing)?;
            let taken: std::collections::HashSet<Ipv4Addr> =
                links.iter().filter_map(addresses_of).map(|(v4, _)| v4).collect();
            let free = subnet::hosts(subnet).map(|distance| subnet::at(subnet, distance));
            for address in free.filter(|address| !taken.contains(address)) {
                if let Some(cable) = self.attempt(address)? {
                    return Ok(cable);
                }
            }
            for link in links.iter().filter(|link| addresses_of(link).is_some()) {
                crate::actions::remove_if_dying(&self.host.route, link)?;
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

fn unplugged(refusal: Refusal, bridge: &Bridge, name: &str) -> Error {
    let errno = refusal.errno;
    let error = refusal.during(format_args!("plug {name} into {}", bridge.name));
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
    fn a_links_names_are_its_addresses() {
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
