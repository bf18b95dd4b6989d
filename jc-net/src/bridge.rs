//! The bridge: made when it is first used, and then the only place where it is noted what it is like.

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use jc_unshare::{Context, Error, Result};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::forward::{self, Opened};
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

/// The first word of the alias that our bridges have.
const NOTE: &str = "jc";

/// The record in the alias of a bridge that jc-net made.
#[derive(Clone, Debug, Default)]
pub struct Note {
    /// The traffic that the bridge does not let through.
    pub policy: Policy,
    /// Links of the host that forward since this bridge.
    pub opened: Opened,
}

impl Note {
    /// Reads an alias. Nothing if it has a word that jc-net does not write.
    fn read(alias: &str) -> Option<Self> {
        let mut note = Self::default();
        let mut words = alias.split(' ');
        let is_ours = words.next() == Some(NOTE);
        let is_known = |word: &str| match word {
            "internal" => !std::mem::replace(&mut note.policy.internal, true),
            "isolate" => !std::mem::replace(&mut note.policy.isolate, true),
            word => note.opened.read(word),
        };
        (is_ours && words.all(is_known)).then_some(note)
    }

    /// The alias. An error if the kernel has no room for it (`IFALIASZ`).
    fn write(&self) -> Result<String> {
        const LONGEST: usize = 255;
        let mut alias = NOTE.to_owned();
        for (is, word) in [(self.policy.internal, " internal"), (self.policy.isolate, " isolate")] {
            if is {
                alias.push_str(word);
            }
        }
        alias.push_str(&self.opened.to_string());
        if alias.len() > LONGEST { Err(forward::too_many(&self.opened)) } else { Ok(alias) }
    }
}

/// The note of a bridge of ours; of any other link nothing.
fn note(link: &Link) -> Option<Note> {
    if link.kind == "bridge" { Note::read(&link.alias) } else { None }
}

/// Whether a link is a bridge of ours. One that is down is not complete.
pub fn is_ours(link: &Link) -> bool {
    note(link).is_some()
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
    let Some(Note { policy, .. }) = note(&link) else { return Err(taken(&link)) };
    let addresses = route::addresses(&host.route, link.index).map_err(|r| r.during(doing()))?;
    let v4 = addresses.iter().find_map(|a| if let IpNetwork::V4(a) = a { Some(*a) } else { None });
    let v6 = addresses.iter().find_map(|a| if let IpNetwork::V6(a) = a { Some(*a) } else { None });
    let Some(v4) = v4 else {
        return Err(Error::new(format_args!("{} has no IPv4 address any more", link.name))
            .hint(format_args!("jc-net --rm-bridge {} clears the way for a new one", link.name)));
    };
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

/// Makes it, or completes it if its rules are gone. The last step is to set the bridge up.
fn make(host: &Host, wanted: &Wanted<'_>) -> Result<()> {
    let name = wanted.name;
    let doing = |step: &'static str| move |r: Refusal| r.during(format_args!("{step} {name}"));
    if let Some(link) = link::by_name(&host.route, name).map_err(doing("look for"))? {
        match is_ours(&link) {
            false => return Err(taken(&link)),
            true if link.up => return repair(host, &link),
            true => remove(host, &link)?,
        }
    }
    let routes = route::routes(&host.route).map_err(|r| r.during("list routes"))?;
    let subnets = choose(host, wanted, &routes)?;
    let mtu = match wanted.mtu {
        Some(mtu) => mtu,
        None => uplink_mtu(host, &routes)?,
    };
    let opened = match wanted.policy.internal {
        true => Opened::default(),
        false => forward::find(host, &routes, subnets.iter().any(IpNetwork::is_ipv6))?,
    };
    let note = Note { policy: wanted.policy, opened };
    let link = create(host, name, mtu, &note)?;
    furnish(host, wanted, link.index, &subnets, &note).inspect_err(|_| {
        // The first error is the one to be reported. `--gc` removes the bridge too.
        drop(remove(host, &link));
    })
}

/// Makes a bridge, down and with its note, under a name at random, so that no bridge without a note
/// has the wanted name.
fn create(host: &Host, name: &str, mtu: u32, note: &Note) -> Result<Link> {
    let [a, b, c, d, e, f] = random()?;
    let temporary = format!("jc-{a:02x}{b:02x}{c:02x}{d:02x}{e:02x}{f:02x}");
    let mac = Mac([0x02, 0x6a, 0x63, d, e, f]);
    link::add_bridge(&host.route, &temporary, mac, mtu, &note.write()?)
        .map_err(|refusal| unmade(refusal, name))?;
    let made = link::by_name(&host.route, &temporary);
    let made = made.map_err(|r| r.during(format_args!("look for {temporary}")))?;
    let link = made.ok_or_else(|| Error::new(format_args!("{temporary}: removed meanwhile")))?;
    if let Err(refusal) = link::rename(&host.route, link.index, name) {
        // The first error is the one to be reported. `--gc` removes the bridge too.
        drop(link::remove(&host.route, link.index));
        return Err(refusal.during(format_args!("name {name}")));
    }
    Ok(Link { name: name.to_owned(), ..link })
}

fn unmade(refusal: Refusal, name: &str) -> Error {
    let lacks = refusal.errno == Errno::OPNOTSUPP;
    let error = refusal.during(format_args!("make bridge {name}"));
    if lacks { error.hint("the kernel lacks bridges: modprobe bridge") } else { error }
}

/// Addresses, rules and settings of a bridge that is down yet.
fn furnish(
    host: &Host,
    wanted: &Wanted<'_>,
    index: u32,
    subnets: &[IpNetwork],
    note: &Note,
) -> Result<()> {
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
    rules::make(&host.netfilter, name, &given, note)?;
    if !wanted.policy.internal {
        forward::open(host, name, &note.opened)?;
    }
    let up = host.route.ask(link::set_up(index));
    up.map_err(|r| r.during(format_args!("set up {name}")))?;
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

/// Makes the rules of a bridge that is up anew, lets links forward to which routes have come since, and
/// forgets links where the host has become a router.
pub fn repair(host: &Host, link: &Link) -> Result<()> {
    let name = &link.name;
    let doing = |r: Refusal| r.during(format_args!("look for {name}"));
    let addresses = route::addresses(&host.route, link.index).map_err(doing)?;
    let mut note = note(link).ok_or_else(|| taken(link))?;
    if !note.policy.internal {
        let routes = route::routes(&host.route).map_err(|r| r.during("list routes"))?;
        note.opened.forget_routers()?;
        let v6 = addresses.iter().any(IpNetwork::is_ipv6);
        note.opened.add(&forward::find(host, &routes, v6)?);
        set_note(host, link, &note)?;
    }
    rules::make(&host.netfilter, name, &addresses, &note)?;
    if !note.policy.internal {
        forward::open(host, name, &note.opened)?;
    }
    host.say(format_args!("made the nft rules of {name} again"));
    Ok(())
}

fn set_note(host: &Host, link: &Link, note: &Note) -> Result<()> {
    let set = link::set_note(&host.route, link.index, &note.write()?);
    set.map_err(|r| r.during(format_args!("set the alias of {}", link.name)))
}

/// Removes a bridge of ours with its rules. Another bridge takes over what is recorded of the host, or
/// the host gets its settings back.
pub fn remove(host: &Host, link: &Link) -> Result<()> {
    let doing = |r: Refusal| r.during(format_args!("remove {}", link.name));
    // Not as it was when somebody listed it: a bridge before may have handed on its record.
    let Some(link) = link::by_index(&host.route, link.index).map_err(doing)? else { return Ok(()) };
    let opened = note(&link).ok_or_else(|| taken(&link))?.opened;
    if !opened.is_empty() {
        match heir(host, &link)? {
            Some((heir, mut note)) => {
                note.opened.add(&opened);
                set_note(host, &heir, &note)?;
                repair(host, &Link { alias: note.write()?, ..heir })?;
            }
            None => forward::close(host, &opened)?,
        }
    }
    match link::remove(&host.route, link.index) {
        Err(refusal) if refusal.errno != Errno::NODEV => return Err(doing(refusal)),
        _ => {}
    }
    rules::remove(&host.netfilter, &link.name)
}

/// Another bridge that forwards, and its note.
fn heir(host: &Host, link: &Link) -> Result<Option<(Link, Note)>> {
    let links = link::list(&host.route, None).map_err(|r| r.during("list links"))?;
    let others = links.into_iter().filter(|other| other.up && other.index != link.index);
    let mut bridges = others.filter_map(|other| Some((other.clone(), note(&other)?)));
    Ok(bridges.find(|(_, note)| !note.policy.internal))
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
