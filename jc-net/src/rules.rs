//! The rule sets: one a bridge, made once, in the table `jc`; and one a holder of published ports, in
//! a table of its own that ends with it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use jc_unshare::{Error, Result};

use crate::bridge::Note;
use crate::forward::Opened;
use crate::netlink::Socket;
use crate::nft::{self, Batch, Field, Hook, Map, Rule, explain, octets};
use crate::ports::{Forward, Protocol};

/// The table of the bridges' rules.
const TABLE: &str = "jc";

/// What a bridge lets through.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Policy {
    /// No way out of the bridge.
    pub internal: bool,
    /// No way from one container to another.
    pub isolate: bool,
}

/// The chains of a bridge, each at its hook.
fn chain_names(bridge: &str) -> [(String, Hook); 3] {
    [
        (format!("{bridge}-raw"), Hook::Raw),
        (format!("{bridge}-forward"), Hook::Forward),
        (format!("{bridge}-nat"), Hook::Postrouting),
    ]
}

/// Makes a bridge's rules, or makes them anew.
pub fn make(socket: &Socket, bridge: &str, subnets: &[IpNetwork], note: &Note) -> Result<()> {
    let policy = note.policy;
    let [raw, forward, nat] = chain_names(bridge);
    refuse_foreign(socket, &[&raw.0, &forward.0, &nat.0])?;
    let mut batch = Batch::new();
    batch.table(TABLE);
    for (name, hook) in [&raw, &forward, &nat] {
        batch.chain(TABLE, name, *hook);
    }
    let loopback = IpNetwork::V4(Ipv4Network::from(Ipv4Addr::LOCALHOST));
    let loopback = IpNetwork::new(loopback.ip(), 8).unwrap_or(loopback);
    // Published ports are reachable by 127.0.0.1, for which the bridge routes such addresses. From
    // the other side nobody may use that.
    batch.rule(TABLE, &raw.0, |r| {
        r.input(true, bridge).address(Field::Destination, loopback).drop()
    });
    for v4 in [true, false] {
        batch.rule(TABLE, &raw.0, |r| from_elsewhere(r.input(true, bridge), v4, subnets).drop());
    }
    if policy.internal {
        batch.rule(TABLE, &forward.0, |r| r.input(true, bridge).output(false, bridge).drop());
        batch.rule(TABLE, &forward.0, |r| r.input(false, bridge).output(true, bridge).drop());
    } else {
        // What is not published is not reachable by routing either.
        batch.rule(TABLE, &forward.0, |r| {
            let r = r.input(false, bridge).output(true, bridge);
            r.unasked_for().redirected(false).drop()
        });
    }
    if policy.isolate {
        // The ports' isolation stops frames; this stops packets that go by way of the host.
        batch.rule(TABLE, &forward.0, |r| r.input(true, bridge).output(true, bridge).drop());
    }
    drop_between_links(&mut batch, &forward.0, &note.opened);
    for subnet in subnets.iter().filter(|_| !policy.internal) {
        batch.rule(TABLE, &nat.0, |r| {
            r.output(false, bridge).address(Field::Source, *subnet).masquerade()
        });
    }
    // To a published port of a neighbour: the answer has to come back the same way.
    for subnet in subnets {
        batch.rule(TABLE, &nat.0, |r| {
            r.output(true, bridge).address(Field::Source, *subnet).redirected(true).masquerade()
        });
    }
    batch.rule(TABLE, &nat.0, |r| {
        r.output(true, bridge).address(Field::Source, loopback).masquerade()
    });
    explain(batch.commit(socket), &format!("make the nft rules of {bridge}"))
}

/// Drops new packets from links that were set to forward: the host was no router there, and becomes one
/// only for its bridges.
fn drop_between_links(batch: &mut Batch, chain: &str, opened: &Opened) {
    for (v4, links) in [(true, &opened.v4), (false, &opened.v6)] {
        for link in links {
            batch.rule(TABLE, chain, |r| {
                let r = r.family(v4).input(true, link).output(false, link);
                r.unasked_for().redirected(false).drop()
            });
        }
    }
}

/// Packets whose source is no address that a container of the bridge can have. A service of the host
/// would take 127.0.0.0/8 for the host itself.
fn from_elsewhere(rule: Rule, v4: bool, subnets: &[IpNetwork]) -> Rule {
    let link_local = Ipv6Network::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10).ok();
    let link_local = link_local.filter(|_| !v4).map(IpNetwork::V6);
    let own = subnets.iter().copied().filter(|subnet| subnet.is_ipv4() == v4).chain(link_local);
    own.fold(rule.family(v4), |rule, network| rule.within(false, Field::Source, network))
}

/// Refuses chains that somebody else has made under these names.
fn refuse_foreign(socket: &Socket, names: &[&String]) -> Result<()> {
    let chains = explain(nft::chains(socket), "list nft chains")?;
    let in_table = chains.iter().filter(|chain| chain.is_in(TABLE) && !chain.is_marked);
    match in_table.into_iter().find(|chain| names.contains(&&chain.name)) {
        Some(chain) => {
            let name = &chain.name;
            Err(Error::new(format_args!("nft chain inet {TABLE} {name}: not made by this jc-net"))
                .hint(format_args!("nft delete table inet {TABLE} removes it")))
        }
        None => Ok(()),
    }
}

/// Whether a bridge has its rules still: a firewall that starts anew may throw them away.
pub fn are_there(socket: &Socket, bridge: &str) -> Result<bool> {
    let [.., (nat, _)] = chain_names(bridge);
    explain(nft::has_chain(socket, TABLE, &nat), "look for nft rules")
}

/// Takes away a bridge's rules, if there are any, and the table with the last of them.
pub fn remove(socket: &Socket, bridge: &str) -> Result<()> {
    let doing = format!("remove the nft rules of {bridge}");
    let chains = explain(nft::chains(socket), &doing)?;
    let names = chain_names(bridge).map(|(name, _)| name);
    let (ours, others): (Vec<_>, Vec<_>) = chains
        .into_iter()
        .filter(|chain| chain.is_in(TABLE))
        .partition(|chain| chain.is_marked && names.contains(&chain.name));
    if ours.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::new();
    if others.is_empty() && explain(nft::is_marked(socket, TABLE), &doing)? {
        batch.delete_table(TABLE);
    } else {
        ours.iter().for_each(|chain| batch.delete_chain(TABLE, &chain.name));
    }
    explain(batch.commit(socket), &doing)
}

/// The bridges that have rules.
pub fn bridges(socket: &Socket) -> Result<Vec<String>> {
    let chains = explain(nft::chains(socket), "list nft chains")?;
    let ours = chains.into_iter().filter(|chain| chain.is_in(TABLE) && chain.is_marked);
    Ok(ours.filter_map(|chain| chain.name.strip_suffix("-nat").map(str::to_owned)).collect())
}

/// Whose chains drop what is passed on and no rule of theirs lets through, by name.
pub fn who_drops_forwarded(socket: &Socket) -> Result<Vec<String>> {
    const FORWARD: Option<u32> = Some(2);
    let chains = explain(nft::chains(socket), "list nft chains")?;
    let foreign = chains.iter().filter(|c| !c.is_marked && c.hook == FORWARD);
    // firewalld's chain has no policy, but a rule at its end that does the same.
    let dropping = foreign.filter(|c| c.drops || c.table == "firewalld");
    let family = |number| match number {
        2 => "ip",
        10 => "ip6",
        _ => "inet",
    };
    Ok(dropping.map(|c| format!("{} {} {}", family(c.family), c.table, c.name)).collect())
}

/// The maps of a holder's table: of which family, and whether the host's address is in the key.
const MAPS: [(&str, bool, bool); 4] = [
    ("ports4", true, false),
    ("ports4-at", true, true),
    ("ports6", false, false),
    ("ports6-at", false, true),
];

/// The name of the table of the container that has a lease of that name.
fn table_of(link: &str) -> String {
    format!("jc-{link}")
}

/// Whether ports of a container still lead to the address that a name leases. The container may have
/// removed its link.
pub fn has_published(socket: &Socket, lease: &str) -> Result<bool> {
    explain(nft::has_table(socket, &table_of(lease)), "look for published ports")
}

/// Makes the rules for published ports, which live as long as the socket. `leases` are the names of the
/// container's addresses, first that of its link on the host. Each gets a table: the rules are in
/// the first, and the others keep the address from the next container.
pub fn publish(socket: &Socket, leases: &[String], forwards: &[Forward]) -> Result<()> {
    // The types of nft(8): ipv4_addr, ipv6_addr, inet_proto and inet_service.
    const TYPES: [u32; 4] = [7, 8, 12, 13];
    let [ipv4, ipv6, proto, service] = TYPES;
    let Some((link, others)) = leases.split_first() else { return Ok(()) };
    let table = table_of(link);
    let mut batch = Batch::new();
    batch.own_table(&table);
    others.iter().for_each(|lease| batch.own_table(&table_of(lease)));
    for (chain, hook) in [("prerouting", Hook::Prerouting), ("output", Hook::Output)] {
        batch.chain(&table, chain, hook);
    }
    for (name, v4, by_address) in MAPS {
        let wanted = |f: &&Forward| f.to.is_ipv4() == v4 && f.host.is_unspecified() != by_address;
        let elements: Vec<_> = forwards.iter().filter(wanted).map(element).collect();
        if elements.is_empty() {
            continue;
        }
        let (address, length) = if v4 { (ipv4, 4) } else { (ipv6, 16) };
        let map = Map {
            name: name.to_owned(),
            key_type: if by_address { address << 12 } else { 0 } | proto << 6 | service,
            key_length: if by_address { length } else { 0 } + 8,
            data_type: address << 6 | service,
            data_length: length + 4,
            elements,
        };
        batch.map(&table, &map);
        for chain in ["prerouting", "output"] {
            batch.rule(&table, chain, |r| {
                let r = r.family(v4);
                // The kernel would not take the answers for ::1; so it is refused at once.
                let r = if v4 { r } else { r.not_to_loopback() };
                let r = if by_address { r } else { r.for_this_host() };
                r.redirect(v4, by_address, name)
            });
        }
    }
    explain(batch.commit(socket), "make the nft rules of published ports")
}

/// A port as key and value: each field is filled up to four bytes.
fn element(forward: &Forward) -> (Vec<u8>, Vec<u8>) {
    let port = |port: u16| [&port.to_be_bytes()[..], &[0, 0]].concat();
    let mut key = if forward.host.is_unspecified() { Vec::new() } else { octets(forward.host) };
    key.extend([forward.protocol.number(), 0, 0, 0]);
    key.extend(port(forward.host_port));
    let mut value = octets(forward.to);
    value.extend(port(forward.port));
    (key, value)
}

/// The reverse of [`element`].
pub fn forward((key, value): &(Vec<u8>, Vec<u8>)) -> Option<Forward> {
    let port = |field: &[u8]| Some(u16::from_be_bytes(field.get(..2)?.try_into().ok()?));
    let (address, rest) = key.split_at_checked(key.len().checked_sub(8)?)?;
    let (to, to_port) = value.split_at_checked(value.len().checked_sub(4)?)?;
    let to = crate::message::address(to)?;
    let any: IpAddr = match to {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    Some(Forward {
        protocol: Protocol::from_number(*rest.first()?)?,
        host: crate::message::address(address).unwrap_or(any),
        host_port: port(rest.get(4..)?)?,
        to,
        port: port(to_port)?,
    })
}

/// The published ports of the container whose link on the host has that name.
pub fn published(socket: &Socket, link: &str) -> Result<Vec<Forward>> {
    let mut all = Vec::new();
    for (map, ..) in MAPS {
        let found = nft::elements(socket, &table_of(link), map);
        all.extend(explain(found, "list published ports")?.iter().filter_map(forward));
    }
    all.sort();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_becomes_an_element_and_is_read_again() {
        for (host, to) in [
            ("0.0.0.0", "10.88.0.2"),
            ("127.0.0.1", "10.88.0.2"),
            ("::", "fd00::2"),
            ("2001:db8::1", "fd00::2"),
        ] {
            let one = Forward {
                protocol: Protocol::Udp,
                host: host.parse().unwrap(),
                host_port: 8080,
                to: to.parse().unwrap(),
                port: 80,
            };
            assert_eq!(forward(&element(&one)), Some(one));
        }
        assert_eq!(forward(&(vec![0; 3], vec![0; 3])), None);
    }
}
