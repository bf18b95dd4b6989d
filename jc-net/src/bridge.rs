//! The bridge: made when it is first used, and then the only place where it is noted what it is like.

use std::fs;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use jc_unshare::{Context, Error, Result};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::host::Host;
use crate::link::{self, Link, Mac};
use crate::net::wait_until_local;
use crate::netlink::Refusal;
use crate::route::{self, Route};
use crate::rules::{self, Policy};
use crate::{subnet, sysctl};

/// What is asked of a bridge; one that is there already must be so.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// Its name.
    pub name: &'a str,
    /// At most one of each family.
    pub subnets: &'a [IpNetwork],
    /// Whether an address of IPv6 is needed.
    pub needs_v6: bool,
    /// What it must not let through.
    pub policy: Policy,
    /// The longest packet, in bytes.
    pub mtu: Option<u32>,
}

/// A bridge that is ready.
#[derive(Clone, Debug)]
pub struct Bridge {
    /// Its number on the host.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The longest packet, in bytes.
    pub mtu: u32,
    /// Its own address, the gateway's, with the prefix.
    pub v4: Ipv4Network,
    /// The same for IPv6.
    pub v6: Option<Ipv6Network>,
    /// What it does not let through.
    pub policy: Policy,
}

/// How the hardware address of our bridges begins: one that is down and has no note yet can be told
/// from somebody else's.
const MAC_PREFIX: [u8; 3] = [0x02, 0x6a, 0x63];

/// The first word of the note that our bridges have.
const NOTE: &str = "jc";

/// Whether a link is a bridge of ours.
pub fn is_ours(link: &Link) -> bool {
    link.kind == "bridge" && link.alias.split(' ').next() == Some(NOTE)
}

/// Whether a link is a bridge that somebody of ours has begun to make. Only so if nobody else is
/// making one at the moment.
pub fn is_half_made(link: &Link) -> bool {
    let marked = link.mac.is_some_and(|mac| mac.0.starts_with(&MAC_PREFIX));
    link.kind == "bridge" && !link.up && link.alias.is_empty() && marked
}

/// What a bridge's note says.
pub fn policy(link: &Link) -> Policy {
    let has = |word| link.alias.split(' ').any(|w| w == word);
    Policy { internal: has("internal"), isolate: has("isolate") }
}

fn note(policy: Policy) -> String {
    let mut note = NOTE.to_owned();
    for (is, word) in [(policy.internal, " internal"), (policy.isolate, " isolate")] {
        if is {
            note.push_str(word);
        }
    }
    note
}

/// Finds the bridge, or makes it. The bridge stays as it is until this process lets the lock go.
pub fn ensure(host: &Host, wanted: &Wanted<'_>) -> Result<Bridge> {
    ensure_locked(host, wanted).inspect_err(|_| {
        // The first error is the one to be reported. `--gc` removes the file too.
        drop(host.lock.remove());
    })
}

fn ensure_locked(host: &Host, wanted: &Wanted<'_>) -> Result<Bridge> {
    loop {
        host.lock.keep_bridges()?;
        if let Some(bridge) = find(host, wanted)? {
            wanted.check(&bridge)?;
            return Ok(bridge);
        }
        host.lock.change_bridges()?;
        // Another may have made it meanwhile.
        if find(host, wanted)?.is_none() {
            make(host, wanted)?;
        }
    }
}

/// The bridge of that name, if it is complete and its rules are there.
fn find(host: &Host, wanted: &Wanted<'_>) -> Result<Option<Bridge>> {
    let doing = || format!("look for {}", wanted.name);
    let link = link::by_name(&host.route, wanted.name).map_err(|r| r.during(doing()))?;
    let Some(link) = link.filter(|link| link.up) else { return Ok(None) };
    if !is_ours(&link) {
        return Err(taken(&link));
    }
    let addresses = route::addresses(&host.route, link.index).map_err(|r| r.during(doing()))?;
    let v4 = addresses.iter().find_map(|a| if let IpNetwork::V4(a) = a { Some(*a) } else { None });
    let v6 = addresses.iter().find_map(|a| if let IpNetwork::V6(a) = a { Some(*a) } else { None });
    let Some(v4) = v4 else {
        return Err(Error::new(format_args!("{} has no IPv4 address any more", link.name))
            .hint(format_args!("jc-net --rm-bridge {} clears the way for a new one", link.name)));
    };
    let policy = policy(&link);
    let bridge = Bridge { index: link.index, mtu: link.mtu, v4, v6, policy, name: link.name };
    let is_complete = rules::are_there(&host.netfilter, &bridge.name)?;
    Ok(Some(bridge).filter(|_| is_complete))
}

fn taken(link: &Link) -> Error {
    let what = if link.kind.is_empty() { "a link" } else { &link.kind };
    Error::new(format_args!("{}: the name is taken by {what} that jc-net has not made", link.name))
        .hint("--bridge names another")
}

impl Wanted<'_> {
    /// Whether a bridge that is there is as it was asked for.
    fn check(&self, bridge: &Bridge) -> Result<()> {
        let differs = |what: &str| {
            Err(Error::new(format_args!("{} {what}", bridge.name))
                .hint("--bridge NAME makes another one"))
        };
        let has = [Some(IpNetwork::V4(bridge.v4)), bridge.v6.map(IpNetwork::V6)];
        let same =
            |a: IpNetwork, b: IpNetwork| a.network() == b.network() && a.prefix() == b.prefix();
        for wanted in self.subnets {
            if !has.iter().flatten().any(|has| same(*has, *wanted)) {
                return differs(&format!("is there, and its subnet is not {wanted}"));
            }
        }
        if self.needs_v6 && bridge.v6.is_none() {
            return differs("has no IPv6");
        }
        if self.policy.internal && !bridge.policy.internal {
            return differs("is there, and is not internal");
        }
        if self.policy.isolate && !bridge.policy.isolate {
            return differs("is there, and does not isolate");
        }
        match self.mtu.filter(|mtu| *mtu != bridge.mtu) {
            Some(mtu) => differs(&format!("is there, and its MTU is {}, not {mtu}", bridge.mtu)),
            None => Ok(()),
        }
    }

    fn subnet(&self, v4: bool) -> Option<IpNetwork> {
        self.subnets.iter().copied().find(|subnet| subnet.is_ipv4() == v4)
    }

    /// Whether its user would have to be told that there is no IPv6.
    fn insists_on_v6(&self) -> bool {
        self.needs_v6 || self.subnet(false).is_some()
    }
}

/// Makes it, or completes what another could not. The last step is to note what it is and set it up.
fn make(host: &Host, wanted: &Wanted<'_>) -> Result<()> {
    let name = wanted.name;
    let doing = |step: &'static str| move |r: Refusal| r.during(format_args!("{step} {name}"));
    let routes = route::routes(&host.route).map_err(|r| r.during("list routes"))?;
    if let Some(link) = link::by_name(&host.route, name).map_err(doing("look for"))? {
        if is_ours(&link) && link.up {
            return complete(host, &link);
        }
        if !is_half_made(&link) && !is_ours(&link) {
            return Err(taken(&link));
        }
        link::remove(&host.route, link.index).map_err(doing("remove"))?;
    }
    let subnets = choose(host, wanted, &routes)?;
    let mtu = match wanted.mtu {
        Some(mtu) => mtu,
        None => uplink_mtu(host, &routes)?,
    };
    let [a, b, c] = MAC_PREFIX;
    let [d, e, f] = random()?;
    link::add_bridge(&host.route, name, Mac([a, b, c, d, e, f]), mtu)
        .map_err(|refusal| unmade(refusal, name))?;
    let made = link::by_name(&host.route, name).map_err(doing("look for"))?;
    let index = made.ok_or_else(|| Error::new(format_args!("{name}: removed meanwhile")))?.index;
    let outcome = furnish(host, wanted, index, &subnets);
    if outcome.is_err() {
        // The reason is the error to be told.
        let _: Result<()> = rules::remove(&host.netfilter, name);
        let _: Result<(), Refusal> = link::remove(&host.route, index);
    }
    outcome
}

fn unmade(refusal: Refusal, name: &str) -> Error {
    let lacks = refusal.errno == Errno::OPNOTSUPP;
    let error = refusal.during(format_args!("make bridge {name}"));
    if lacks { error.hint("the kernel lacks bridges: modprobe bridge") } else { error }
}

/// Addresses, rules and settings of a bridge that is down yet.
fn furnish(host: &Host, wanted: &Wanted<'_>, index: u32, subnets: &[IpNetwork]) -> Result<()> {
    let name = wanted.name;
    sysctl::quiet_ipv6(name)?;
    // A link with an MTU below 1280 has no IPv6, and no such setting.
    let disabled = sysctl::get(&format!("ipv6/conf/{name}/disable_ipv6"))?;
    let has_v6 = disabled.as_deref() == Some("0");
    let mut given = Vec::new();
    for subnet in subnets.iter().filter(|s| s.is_ipv4() || has_v6 || wanted.insists_on_v6()) {
        let Some(address) = subnet::gateway(*subnet) else { continue };
        if let Err(refusal) = host.route.ask(route::add_address(index, address)) {
            let error = refusal.during(format_args!("give {name} the address {address}"));
            return Err(if subnet.is_ipv4() || has_v6 { error } else { error.hint(v6_hint()?) });
        }
        given.push(*subnet);
    }
    if !wanted.policy.internal {
        forward(host, given.iter().any(IpNetwork::is_ipv6))?;
    }
    rules::make(&host.netfilter, name, &given, wanted.policy)?;
    link::note_and_set_up(&host.route, index, &note(wanted.policy))
        .map_err(|r| r.during(format_args!("set up {name}")))?;
    host.say(format_args!("made bridge {name}"));
    let mut gateways = given.iter().filter_map(|subnet| subnet::gateway(*subnet));
    gateways.try_for_each(|gateway| wait_until_local(&host.route, gateway.ip()))
}

fn v6_hint() -> Result<&'static str> {
    Ok(match sysctl::get("ipv6/conf/all/disable_ipv6")?.as_deref() {
        Some("1") => "the sysctl net.ipv6.conf.all.disable_ipv6 is 1",
        Some(_) => "IPv6 needs an MTU of 1280 or more",
        None => "the kernel has no IPv6",
    })
}

/// Makes the rules of a complete bridge anew.
fn complete(host: &Host, link: &Link) -> Result<()> {
    let addresses = route::addresses(&host.route, link.index);
    let addresses = addresses.map_err(|r| r.during(format_args!("look for {}", link.name)))?;
    host.say(format_args!("the nft rules of {} were gone: made again", link.name));
    rules::make(&host.netfilter, &link.name, &addresses, policy(link))
}

/// The subnets for a new bridge: those asked for, and the default of a family for which none is.
fn choose(host: &Host, wanted: &Wanted<'_>, routes: &[Route]) -> Result<Vec<IpNetwork>> {
    let clash = |subnet: &IpNetwork| {
        let taken = |r: &&Route| r.to.is_some_and(|to| subnet::overlap(to, *subnet));
        routes.iter().find(taken)
    };
    let defaults = subnet::defaults(wanted.name);
    let defaults = defaults.into_iter().map(IpNetwork::V4);
    let v4: Vec<IpNetwork> = match wanted.subnet(true) {
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
    if let Some(subnet) = wanted.subnet(false) {
        if let Some(route) = clash(&subnet) {
            return Err(overlapping(host, subnet, route));
        }
        subnets.push(subnet);
    } else if wanted.needs_v6 || sysctl::has_ipv6()? {
        subnets.extend(subnet::unique_local(random()?).map(IpNetwork::V6));
    }
    Ok(subnets)
}

fn overlapping(host: &Host, subnet: IpNetwork, route: &Route) -> Error {
    // The name only helps to read the error.
    let link = route.link.and_then(|index| link::by_index(&host.route, index).ok().flatten());
    let by = link.map_or(String::new(), |link| format!(" dev {}", link.name));
    let to = route.to.map_or("default".to_owned(), |to| to.to_string());
    Error::new(format_args!("subnet {subnet} overlaps the host's route {to}{by}"))
        .hint("--subnet chooses another")
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom(&mut bytes, GetRandomFlags::empty()).op("getrandom")?;
    Ok(bytes)
}

/// The MTU of the link that leads to the world, the usual one if there is none.
fn uplink_mtu(host: &Host, routes: &[Route]) -> Result<u32> {
    const ETHERNET: u32 = 1500;
    let uplink = routes.iter().find(|route| route.to.is_none()).and_then(|route| route.link);
    let Some(index) = uplink else { return Ok(ETHERNET) };
    let link = link::by_index(&host.route, index).map_err(|r| r.during("look for the uplink"))?;
    Ok(link.map_or(ETHERNET, |link| link.mtu))
}

/// Lets the host pass packets on.
fn forward(host: &Host, v6: bool) -> Result<()> {
    if sysctl::ensure("ipv4/ip_forward", "1")? {
        host.say("set net.ipv4.ip_forward to 1");
    }
    if v6 && sysctl::get("ipv6/conf/all/forwarding")?.as_deref() == Some("0") {
        keep_routers(host)?;
        sysctl::set("ipv6/conf/all/forwarding", "1")?;
        host.say("set net.ipv6.conf.all.forwarding to 1");
    }
    Ok(())
}

/// A host that passes packets on listens to routers no more unless it is told so: it would lose its
/// own way out.
fn keep_routers(host: &Host) -> Result<()> {
    let dir = "/proc/sys/net/ipv6/conf";
    for entry in fs::read_dir(dir).on("read", dir)?.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !["all", "default", "lo"].contains(name))
        else {
            continue;
        };
        let setting = format!("ipv6/conf/{name}/accept_ra");
        if sysctl::get(&setting)?.as_deref() == Some("1") {
            sysctl::set(&setting, "2")?;
            host.say(format_args!("set net.ipv6.conf.{name}.accept_ra to 2"));
        }
    }
    Ok(())
}
