//! Rules of nf_tables: chains for each bridge in the table `jc`, and a table for each process with published ports, which
//! ends with the process.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use jc_unshare::{Error, Result};

use crate::linux::netlink::Socket;
use crate::linux::nft::{self, Batch, Field, Hook, Map, Rule, explain, octets};
use crate::linux::ports::{Forward, Protocol};
use crate::linux::record::{Opened, Record};

/// The table of the bridges' rules.
const TABLE: &str = "jc";

/// The names and hooks of the chains of a bridge.
fn chain_names(bridge: &str) -> [(String, Hook); 3] {
    [
        (format!("{bridge}-raw"), Hook::Raw),
        (format!("{bridge}-forward"), Hook::Forward),
        (format!("{bridge}-nat"), Hook::Postrouting),
    ]
}

/// Writes the rules of a bridge, and replaces existing ones. A chain of another program with one of the names is an error.
pub fn write(socket: &Socket, bridge: &str, subnets: &[IpNetwork], record: &Record) -> Result<()> {
    let policy = record.policy;
    let [raw, forward, nat] = chain_names(bridge);
    check_no_foreign(socket, &[&raw.0, &forward.0, &nat.0])?;
    let mut batch = Batch::new();
    batch.table(TABLE);
    for (name, hook) in [&raw, &forward, &nat] {
        batch.chain(TABLE, name, *hook);
    }
    let loopback = IpNetwork::V4(Ipv4Network::from(Ipv4Addr::LOCALHOST));
    let loopback = IpNetwork::new(loopback.ip(), 8).unwrap_or(loopback);
    // The bridge routes 127.0.0.0/8, since published ports are reachable at 127.0.0.1. Packets from the bridge to these
    // addresses are dropped.
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
        // Only published ports are reachable, also for hosts with a route to the subnet.
        batch.rule(TABLE, &forward.0, |r| {
            let r = r.input(false, bridge).output(true, bridge);
            r.new_connection().redirected(false).drop()
        });
    }
    if policy.isolate {
        // The isolation of ports drops frames. This rule drops packets that the host routes.
        batch.rule(TABLE, &forward.0, |r| r.input(true, bridge).output(true, bridge).drop());
    }
    drop_between_links(&mut batch, &forward.0, &record.opened);
    for subnet in subnets.iter().filter(|_| !policy.internal) {
        batch.rule(TABLE, &nat.0, |r| {
            r.output(false, bridge).address(Field::Source, *subnet).masquerade()
        });
    }
    // Replies of a neighbour with a published port must pass the host, which translates the addresses back.
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

/// Drops new packets from links on which jc-net has enabled forwarding: the host must forward to its bridges only.
fn drop_between_links(batch: &mut Batch, chain: &str, opened: &Opened) {
    for (v4, links) in [(true, &opened.v4), (false, &opened.v6)] {
        for link in links {
            batch.rule(TABLE, chain, |r| {
                let r = r.family(v4).input(true, link).output(false, link);
                r.new_connection().redirected(false).drop()
            });
        }
    }
}

/// Matches packets whose source is outside the subnets of the bridge. A service of the host would take a source in
/// 127.0.0.0/8 for the host itself.
fn from_elsewhere(rule: Rule, v4: bool, subnets: &[IpNetwork]) -> Rule {
    let link_local = Ipv6Network::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10).ok();
    let link_local = link_local.filter(|_| !v4).map(IpNetwork::V6);
    let own = subnets.iter().copied().filter(|subnet| subnet.is_ipv4() == v4).chain(link_local);
    own.fold(rule.family(v4), |rule, network| rule.within(false, Field::Source, network))
}

/// Checks that no chain of another program has one of these names.
fn check_no_foreign(socket: &Socket, names: &[&String]) -> Result<()> {
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

/// Whether a bridge still has its rules, which a restart of a firewall may remove.
pub fn exist(socket: &Socket, bridge: &str) -> Result<bool> {
    let [.., (nat, _)] = chain_names(bridge);
    explain(nft::has_chain(socket, TABLE, &nat), "look for nft rules")
}

/// Removes the rules of a bridge, and the table with the last rules.
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

/// The names of bridges with rules.
pub fn bridges(socket: &Socket) -> Result<Vec<String>> {
    let chains = explain(nft::chains(socket), "list nft chains")?;
    let ours = chains.into_iter().filter(|chain| chain.is_in(TABLE) && chain.is_marked);
    Ok(ours.filter_map(|chain| chain.name.strip_suffix("-nat").map(str::to_owned)).collect())
}

/// The names of other programs' chains that drop forwarded packets unless a rule accepts them.
pub fn chains_that_drop(socket: &Socket) -> Result<Vec<String>> {
    const FORWARD: Option<u32> = Some(2);
    let chains = explain(nft::chains(socket), "list nft chains")?;
    let foreign = chains.iter().filter(|c| !c.is_marked && c.hook == FORWARD);
    // firewalld's chain has no policy, but a last rule with the same effect.
    let dropping = foreign.filter(|c| c.drops || c.table == "firewalld");
    let family = |number| match number {
        2 => "ip",
        10 => "ip6",
        _ => "inet",
    };
    Ok(dropping.map(|c| format!("{} {} {}", family(c.family), c.table, c.name)).collect())
}

/// The maps of a table for published ports: name, whether for IPv4, and whether the key has the host's address.
const MAPS: [(&str, bool, bool); 4] = [
    ("ports4", true, false),
    ("ports4-at", true, true),
    ("ports6", false, false),
    ("ports6-at", false, true),
];

/// The name of the table for a lease.
fn table_of(link: &str) -> String {
    format!("jc-{link}")
}

/// Whether published ports lead to the address of a lease. The container may have removed its link.
pub fn has_published(socket: &Socket, lease: &str) -> Result<bool> {
    explain(nft::has_table(socket, &table_of(lease)), "look for published ports")
}

/// Writes the rules for published ports, which end with the socket. `leases` are the names for the addresses of the
/// container, first the name of its link on the host. Each lease gets a table. The rules are in the first one, and the
/// others mark the addresses as used.
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
        let is_in_map =
            |f: &&Forward| f.to.is_ipv4() == v4 && f.host.is_unspecified() != by_address;
        let elements: Vec<_> = forwards.iter().filter(is_in_map).map(element).collect();
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
                // The kernel would drop the replies for ::1, so the rule leaves connections to ::1 to be refused.
                let r = if v4 { r } else { r.not_to_loopback() };
                let r = if by_address { r } else { r.for_this_host() };
                r.redirect(v4, by_address, name)
            });
        }
    }
    explain(batch.commit(socket), "make the nft rules of published ports")
}

/// A published port as key and value of a map.
fn element(forward: &Forward) -> (Vec<u8>, Vec<u8>) {
    let port = |port: u16| [&port.to_be_bytes()[..], &[0, 0]].concat();
    let mut key = if forward.host.is_unspecified() { Vec::new() } else { octets(forward.host) };
    key.extend([forward.protocol.number(), 0, 0, 0]);
    key.extend(port(forward.host_port));
    let mut value = octets(forward.to);
    value.extend(port(forward.port));
    (key, value)
}

/// The published port of a key and value, the reverse of [`element`].
pub fn forward((key, value): &(Vec<u8>, Vec<u8>)) -> Option<Forward> {
    let port = |field: &[u8]| Some(u16::from_be_bytes(field.get(..2)?.try_into().ok()?));
    let (address, rest) = key.split_at_checked(key.len().checked_sub(8)?)?;
    let (to, to_port) = value.split_at_checked(value.len().checked_sub(4)?)?;
    let to = crate::linux::message::address(to)?;
    let any: IpAddr = match to {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    Some(Forward {
        protocol: Protocol::from_number(*rest.first()?)?,
        host: crate::linux::message::address(address).unwrap_or(any),
        host_port: port(rest.get(4..)?)?,
        to,
        port: port(to_port)?,
    })
}

/// The published ports of a container, by the name of its link on the host.
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
