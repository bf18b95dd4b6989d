//! Bridges of jc-net. The first use creates a bridge. All properties of a bridge are read from the kernel, and the alias
//! of the bridge has those that the kernel does not store.

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use jc_unshare::id::random_bytes;
use jc_unshare::{Error, Result};
use rustix::io::Errno;

use crate::linux::forward;
use crate::linux::host::Host;
use crate::linux::link::{self, Link, Mac, NewBridge};
use crate::linux::netlink::NetlinkError;
use crate::linux::record::{Opened, Policy, Record, is_own_bridge};
use crate::linux::route::{self, Route};
use crate::linux::wait::wait_until_local;
use crate::linux::{rules, subnet, sysctl};

/// The properties of a bridge that the command line requires. An existing bridge must have them.
#[derive(Debug)]
pub struct BridgeSpec<'a> {
    /// The name of the link.
    pub name: &'a str,
    /// The subnets, at most one of each family.
    pub subnets: &'a [IpNetwork],
    /// Whether the bridge needs an IPv6 address.
    pub needs_v6: bool,
    /// The traffic that the bridge drops.
    pub policy: Policy,
    /// The MTU in bytes.
    pub mtu: Option<u32>,
}

/// A bridge with its addresses and rules.
#[derive(Clone, Debug)]
pub struct Bridge {
    /// The index of the link.
    pub index: u32,
    /// The name of the link.
    pub name: String,
    /// The MTU in bytes.
    pub mtu: u32,
    /// The IPv4 address of the bridge, which is the gateway of containers, with the prefix length.
    pub v4: Ipv4Network,
    /// The IPv6 address of the bridge, with the prefix length.
    pub v6: Option<Ipv6Network>,
    /// The traffic that the bridge drops.
    pub policy: Policy,
}

/// Finds or creates a bridge. No other process changes the bridge until this process releases the lock. A bridge that
/// differs from the specification is an error.
pub fn ensure(host: &Host, spec: &BridgeSpec<'_>) -> Result<Bridge> {
    ensure_locked(host, spec).inspect_err(|_| {
        // The first error is reported. `--gc` removes the file too.
        drop(host.lock.remove());
    })
}

fn ensure_locked(host: &Host, spec: &BridgeSpec<'_>) -> Result<Bridge> {
    loop {
        host.lock.keep_bridges()?;
        if let Some(bridge) = find(host, spec)? {
            spec.check(&bridge)?;
            return Ok(bridge);
        }
        host.lock.change_bridges()?;
        // Another process may have created the bridge before this one had the lock.
        if find(host, spec)?.is_none() {
            create(host, spec)?;
        }
    }
}

/// The bridge with the name of the specification, if the bridge is complete and has its rules.
fn find(host: &Host, spec: &BridgeSpec<'_>) -> Result<Option<Bridge>> {
    let doing = || format!("look for {}", spec.name);
    let link = link::by_name(&host.route, spec.name).map_err(|r| r.during(doing()))?;
    let Some(link) = link.filter(|link| link.up) else { return Ok(None) };
    let Some(Record { policy, .. }) = Record::of(&link) else { return Err(name_in_use(&link)) };
    let addresses = route::addresses(&host.route, link.index).map_err(|r| r.during(doing()))?;
    let v4 = addresses.iter().find_map(|a| if let IpNetwork::V4(a) = a { Some(*a) } else { None });
    let v6 = addresses.iter().find_map(|a| if let IpNetwork::V6(a) = a { Some(*a) } else { None });
    let Some(v4) = v4 else {
        return Err(Error::new(format_args!("{} has no IPv4 address any more", link.name))
            .hint(format_args!("jc-net --rm-bridge {} removes it", link.name)));
    };
    let bridge = Bridge { index: link.index, mtu: link.mtu, v4, v6, policy, name: link.name };
    let is_complete = rules::exist(&host.netfilter, &bridge.name)?;
    Ok(Some(bridge).filter(|_| is_complete))
}

fn name_in_use(link: &Link) -> Error {
    let kind = if link.kind.is_empty() { "link" } else { &link.kind };
    Error::new(format_args!("{}: the name of a {kind} that jc-net has not made", link.name))
        .hint("--bridge NAME chooses another name")
}

impl BridgeSpec<'_> {
    /// Requires that an existing bridge has these properties.
    fn check(&self, bridge: &Bridge) -> Result<()> {
        let differs = |what: &str| {
            Err(Error::new(format_args!("{} {what}", bridge.name))
                .hint("--bridge NAME makes another bridge"))
        };
        let has = [Some(IpNetwork::V4(bridge.v4)), bridge.v6.map(IpNetwork::V6)];
        let same =
            |a: IpNetwork, b: IpNetwork| a.network() == b.network() && a.prefix() == b.prefix();
        for required in self.subnets {
            if !has.iter().flatten().any(|has| same(*has, *required)) {
                return differs(&format!("exists, and its subnet is not {required}"));
            }
        }
        if self.needs_v6 && bridge.v6.is_none() {
            return differs("has no IPv6");
        }
        if self.policy.internal && !bridge.policy.internal {
            return differs("exists, and is not internal");
        }
        if self.policy.isolate && !bridge.policy.isolate {
            return differs("exists, and does not isolate containers");
        }
        match self.mtu.filter(|mtu| *mtu != bridge.mtu) {
            Some(mtu) => differs(&format!("exists, and its MTU is {}, not {mtu}", bridge.mtu)),
            None => Ok(()),
        }
    }

    fn subnet(&self, v4: bool) -> Option<IpNetwork> {
        self.subnets.iter().copied().find(|subnet| subnet.is_ipv4() == v4)
    }

    /// Whether a bridge without IPv6 is an error.
    fn requires_v6(&self) -> bool {
        self.needs_v6 || self.subnet(false).is_some()
    }
}

/// Creates the bridge, or restores the rules of an existing one. The last step sets the bridge up, so a bridge that is
/// down is incomplete.
fn create(host: &Host, spec: &BridgeSpec<'_>) -> Result<()> {
    let name = spec.name;
    let doing = |step: &'static str| move |r: NetlinkError| r.during(format_args!("{step} {name}"));
    if let Some(link) = link::by_name(&host.route, name).map_err(doing("look for"))? {
        if !is_own_bridge(&link) {
            return Err(name_in_use(&link));
        }
        if link.up {
            return repair(host, &link);
        }
        remove(host, &link)?;
    }
    let routes = route::routes(&host.route).map_err(|r| r.during("list routes"))?;
    let subnets = choose_subnets(host, spec, &routes)?;
    let mtu = match spec.mtu {
        Some(mtu) => mtu,
        None => uplink_mtu(host, &routes)?,
    };
    let opened = if spec.policy.internal {
        Opened::default()
    } else {
        forward::find(host, &routes, subnets.iter().any(IpNetwork::is_ipv6))?
    };
    let record = Record { policy: spec.policy, opened };
    let link = add_link(host, name, mtu, &record)?;
    let gateways = add_gateways(host, spec, link.index, &subnets);
    gateways.and_then(|subnets| set_up(host, &link, &subnets, &record)).inspect_err(|_| {
        // The first error is reported. `--gc` removes the bridge too.
        drop(remove(host, &link));
    })
}

/// Adds a bridge that is down. The link has a random name until its alias is set, so no bridge without a record has
/// the name of the specification.
fn add_link(host: &Host, name: &str, mtu: u32, record: &Record) -> Result<Link> {
    let [a, b, c, d, e, f] = random_bytes()?;
    let temporary = format!("jc-{a:02x}{b:02x}{c:02x}{d:02x}{e:02x}{f:02x}");
    let mac = Mac([0x02, 0x6a, 0x63, d, e, f]);
    let bridge = NewBridge { name: &temporary, mac, mtu, alias: &record.to_alias()? };
    link::add_bridge(&host.route, &bridge).map_err(|error| add_error(error, name))?;
    let made = link::by_name(&host.route, &temporary);
    let made = made.map_err(|r| r.during(format_args!("look for {temporary}")))?;
    let link = made.ok_or_else(|| Error::new(format_args!("{temporary}: removed meanwhile")))?;
    if let Err(error) = link::rename(&host.route, link.index, name) {
        // The first error is reported. `--gc` removes the bridge too.
        drop(link::remove(&host.route, link.index));
        return Err(error.during(format_args!("name {name}")));
    }
    Ok(Link { name: name.to_owned(), ..link })
}

fn add_error(error: NetlinkError, name: &str) -> Error {
    let lacks = error.errno == Errno::OPNOTSUPP;
    let error = error.during(format_args!("make bridge {name}"));
    if lacks { error.hint("the kernel lacks bridges: modprobe bridge") } else { error }
}

/// Gives a bridge the gateways of subnets as its addresses. Returns the subnets, without those of IPv6 if the link has no
/// IPv6 and the specification does not require it.
fn add_gateways(
    host: &Host,
    spec: &BridgeSpec<'_>,
    index: u32,
    subnets: &[IpNetwork],
) -> Result<Vec<IpNetwork>> {
    let name = spec.name;
    sysctl::quiet_ipv6(name)?;
    // A link with an MTU below 1280 has no IPv6, and lacks this setting.
    let disabled = sysctl::get(&format!("ipv6/conf/{name}/disable_ipv6"))?;
    let has_v6 = disabled.as_deref() == Some("0");
    let mut given = Vec::new();
    for subnet in subnets.iter().filter(|s| s.is_ipv4() || has_v6 || spec.requires_v6()) {
        let Some(address) = subnet::gateway(*subnet) else { continue };
        if let Err(error) = host.route.ask(route::add_address(index, address)) {
            let error = error.during(format_args!("give {name} the address {address}"));
            return Err(if subnet.is_ipv4() || has_v6 { error } else { error.hint(v6_hint()?) });
        }
        given.push(*subnet);
    }
    Ok(given)
}

/// Gives a bridge its rules, and sets it up.
fn set_up(host: &Host, link: &Link, subnets: &[IpNetwork], record: &Record) -> Result<()> {
    let name = &link.name;
    rules::write(&host.netfilter, name, subnets, record)?;
    if !record.policy.internal {
        forward::open(host, name, &record.opened)?;
    }
    let up = host.route.ask(link::set_up(link.index));
    up.map_err(|r| r.during(format_args!("set up {name}")))?;
    host.say(format_args!("made bridge {name}"));
    let mut gateways = subnets.iter().filter_map(|subnet| subnet::gateway(*subnet));
    gateways.try_for_each(|gateway| wait_until_local(&host.route, gateway.ip()))
}

fn v6_hint() -> Result<&'static str> {
    Ok(match sysctl::get("ipv6/conf/all/disable_ipv6")?.as_deref() {
        Some("1") => "the sysctl net.ipv6.conf.all.disable_ipv6 is 1",
        Some(_) => "IPv6 needs an MTU of 1280 or more",
        None => "the kernel has no IPv6",
    })
}

/// Restores the rules of a bridge that is up, and enables forwarding on links to which new routes lead. If the host has
/// become a router, the links are removed from the record.
pub fn repair(host: &Host, link: &Link) -> Result<()> {
    let name = &link.name;
    let doing = |r: NetlinkError| r.during(format_args!("look for {name}"));
    let addresses = route::addresses(&host.route, link.index).map_err(doing)?;
    let mut record = Record::of(link).ok_or_else(|| name_in_use(link))?;
    if !record.policy.internal {
        let routes = route::routes(&host.route).map_err(|r| r.during("list routes"))?;
        record.opened.clear_if_router()?;
        let v6 = addresses.iter().any(IpNetwork::is_ipv6);
        record.opened.add(&forward::find(host, &routes, v6)?);
        set_alias(host, link, &record)?;
    }
    rules::write(&host.netfilter, name, &addresses, &record)?;
    if !record.policy.internal {
        forward::open(host, name, &record.opened)?;
    }
    host.say(format_args!("made the nft rules of {name} again"));
    Ok(())
}

fn set_alias(host: &Host, link: &Link, record: &Record) -> Result<()> {
    let set = link::set_alias(&host.route, link.index, &record.to_alias()?);
    set.map_err(|r| r.during(format_args!("set the alias of {}", link.name)))
}

/// Removes a bridge of jc-net with its rules. The record of changed settings goes to another bridge. Without another
/// bridge the settings are restored.
pub fn remove(host: &Host, link: &Link) -> Result<()> {
    let doing = |r: NetlinkError| r.during(format_args!("remove {}", link.name));
    // The alias may have changed since the caller listed the links: another removal may have added its record.
    let Some(link) = link::by_index(&host.route, link.index).map_err(doing)? else { return Ok(()) };
    let opened = Record::of(&link).ok_or_else(|| name_in_use(&link))?.opened;
    if !opened.is_empty() {
        match other_forwarder(host, &link)? {
            Some((other, mut record)) => {
                record.opened.add(&opened);
                set_alias(host, &other, &record)?;
                repair(host, &Link { alias: record.to_alias()?, ..other })?;
            }
            None => forward::close(host, &opened)?,
        }
    }
    match link::remove(&host.route, link.index) {
        Err(error) if error.errno != Errno::NODEV => return Err(doing(error)),
        _ => {}
    }
    rules::remove(&host.netfilter, &link.name)
}

/// Another bridge of jc-net that forwards, with its record.
fn other_forwarder(host: &Host, link: &Link) -> Result<Option<(Link, Record)>> {
    let links = link::list(&host.route, None).map_err(|r| r.during("list links"))?;
    let others = links.into_iter().filter(|other| other.up && other.index != link.index);
    let mut bridges = others.filter_map(|other| Some((other.clone(), Record::of(&other)?)));
    Ok(bridges.find(|(_, record)| !record.policy.internal))
}

/// The subnets for a new bridge: those of the specification, and a default for a family without one. A subnet that
/// overlaps a route of the host is an error.
fn choose_subnets(host: &Host, spec: &BridgeSpec<'_>, routes: &[Route]) -> Result<Vec<IpNetwork>> {
    let clash = |subnet: &IpNetwork| {
        let taken = |r: &&Route| r.to.is_some_and(|to| subnet::overlap(to, *subnet));
        routes.iter().find(taken)
    };
    let defaults = subnet::defaults(spec.name);
    let defaults = defaults.into_iter().map(IpNetwork::V4);
    let v4: Vec<IpNetwork> = match spec.subnet(true) {
        Some(subnet) => vec![subnet],
        None => defaults.collect(),
    };
    let free = v4.iter().find(|subnet| clash(subnet).is_none());
    let Some(free) = free else {
        return Err(match v4.iter().find_map(|subnet| Some((subnet, clash(subnet)?))) {
            Some((subnet, route)) => overlapping(host, *subnet, route),
            None => Error::new("no subnet"),
        });
    };
    let mut subnets = vec![*free];
    if let Some(subnet) = spec.subnet(false) {
        if let Some(route) = clash(&subnet) {
            return Err(overlapping(host, subnet, route));
        }
        subnets.push(subnet);
    } else if spec.needs_v6 || sysctl::has_ipv6()? {
        subnets.extend(subnet::unique_local(random_bytes()?).map(IpNetwork::V6));
    }
    Ok(subnets)
}

fn overlapping(host: &Host, subnet: IpNetwork, route: &Route) -> Error {
    // Without the name the error is still complete.
    let link = route.link.and_then(|index| link::by_index(&host.route, index).ok().flatten());
    let by = link.map_or(String::new(), |link| format!(" dev {}", link.name));
    let to = route.to.map_or("default".to_owned(), |to| to.to_string());
    Error::new(format_args!("subnet {subnet} overlaps the host's route {to}{by}"))
        .hint("--subnet chooses another")
}

/// The MTU of the link of the default route. Without a default route, the MTU is that of Ethernet.
fn uplink_mtu(host: &Host, routes: &[Route]) -> Result<u32> {
    const ETHERNET: u32 = 1500;
    let uplink = routes.iter().find(|route| route.to.is_none()).and_then(|route| route.link);
    let Some(index) = uplink else { return Ok(ETHERNET) };
    let link = link::by_index(&host.route, index).map_err(|r| r.during("look for the uplink"))?;
    Ok(link.map_or(ETHERNET, |link| link.mtu))
}
