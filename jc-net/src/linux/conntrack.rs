//! Deletion of connection tracking entries for UDP, by ctnetlink (`linux/netfilter/nfnetlink_conntrack.h`). The kernel
//! applies NAT rules only to the first datagram of an entry. An entry outlives its container, and each datagram renews
//! the entry. Without the deletion, a busy client would not reach the next container with the same published port,
//! and would reach the next container with the same address.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jc_unshare::Result;
use rustix::io::Errno;

use crate::linux::message::{Attributes, Message, NESTED};
use crate::linux::netlink::{NetlinkResult, Socket};
use crate::linux::ports::{Forward, Protocol};
use crate::linux::route::{self, FAMILIES};

const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
const GET_STATS: u16 = 5;

const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
const STATS_ENTRIES: u16 = 1;

const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const PROTO_NUMBER: u16 = 1;
const PROTO_DESTINATION_PORT: u16 = 3;

fn message(kind: u16, family: u8) -> Message {
    Message::new(SUBSYSTEM << 8 | kind, 0, &[family, 0, 0, 0])
}

/// The addresses and ports of one direction of an entry.
#[derive(Debug, Eq, PartialEq)]
struct Tuple {
    source: IpAddr,
    destination: IpAddr,
    destination_port: u16,
}

impl Tuple {
    /// Parses the attributes of a tuple. `None`: the protocol is not UDP.
    fn read(tuple: Attributes<'_>) -> Option<Self> {
        let (ip, proto) = (tuple.nested(TUPLE_IP), tuple.nested(TUPLE_PROTO));
        if proto.get(PROTO_NUMBER)? != [Protocol::Udp.number()] {
            return None;
        }
        let address = |v4: u16, v6: u16| ip.address(v4).or_else(|| ip.address(v6));
        let port = proto.get(PROTO_DESTINATION_PORT)?;
        Some(Self {
            source: address(1, 3)?,
            destination: address(2, 4)?,
            destination_port: u16::from_be_bytes(port.try_into().ok()?),
        })
    }
}

/// An entry for UDP.
#[derive(Debug)]
pub struct Entry {
    family: u8,
    original: Tuple,
    reply: Tuple,
    /// The attributes that identify the entry, as in the kernel's answer.
    name: Vec<(u16, Vec<u8>)>,
}

impl Entry {
    /// Parses an answer to `IPCTNL_MSG_CT_GET`. `None`: the protocol is not UDP.
    pub fn read(body: &[u8]) -> Option<Self> {
        let all = Attributes(body.get(4..)?);
        let kept = [TUPLE_ORIG, ID, ZONE].into_iter();
        Some(Self {
            family: *body.first()?,
            original: Tuple::read(all.nested(TUPLE_ORIG))?,
            reply: Tuple::read(all.nested(TUPLE_REPLY))?,
            name: kept.filter_map(|kind| Some((kind, all.get(kind)?.to_vec()))).collect(),
        })
    }

    /// Whether datagrams of the entry go to a port of this host that is published.
    fn is_for(&self, forwards: &[Forward]) -> bool {
        let Tuple { destination: to, destination_port: port, .. } = self.original;
        forwards.iter().filter(|forward| forward.protocol == Protocol::Udp).any(|forward| {
            let any = forward.host.is_unspecified() && forward.host.is_ipv4() == to.is_ipv4();
            forward.host_port == port && (any || forward.host == to)
        })
    }

    /// Whether an address is the source of either direction.
    fn is_of(&self, addresses: &[IpAddr]) -> bool {
        [self.original.source, self.reply.source].iter().any(|source| addresses.contains(source))
    }

    /// Deletes the entry if it still exists.
    fn delete(&self, socket: &Socket) -> NetlinkResult<()> {
        let message = self.name.iter().fold(message(DELETE, self.family), |m, (kind, value)| {
            let nested = if *kind == TUPLE_ORIG { NESTED } else { 0 };
            m.bytes(kind | nested, value)
        });
        match socket.ask(message) {
            Err(error) if error.errno == Errno::NOENT => Ok(()),
            answer => answer,
        }
    }
}

/// The entries for UDP of a family. The kernel walks the whole table, which takes about 5 ms for a table with room for
/// 262,144 entries.
fn list(socket: &Socket, family: u8) -> NetlinkResult<Vec<Entry>> {
    // CTA_FILTER_ORIG_FLAGS: only the number of the protocol is compared (since Linux 5.8).
    const BY_PROTOCOL: u32 = 1 << 3;
    let protocol = |m: Message| m.bytes(PROTO_NUMBER, &[Protocol::Udp.number()]);
    let question = || {
        message(GET, family)
            .nest(TUPLE_ORIG, |m| m.nest(TUPLE_PROTO, protocol))
            .nest(FILTER, |m| m.number(1, BY_PROTOCOL))
    };
    socket.dump(question, Entry::read)
}

/// The number of entries of all protocols.
fn count(socket: &Socket) -> NetlinkResult<u32> {
    let read = |body: &[u8]| Attributes(body.get(4..)?).big(STATS_ENTRIES);
    Ok(socket.get(message(GET_STATS, 0), read)?.unwrap_or(0))
}

/// Deletes the entries of published UDP ports, and the entries with an address of the container as the source of either
/// direction. A kernel without ctnetlink is an error if a UDP port is published.
pub fn delete_stale(
    netfilter: &Socket,
    route: &Socket,
    forwards: &[Forward],
    addresses: &[IpAddr],
) -> Result<()> {
    let publishes = forwards.iter().any(|forward| forward.protocol == Protocol::Udp);
    if !publishes && addresses.is_empty() {
        return Ok(());
    }
    match try_delete_stale(netfilter, route, forwards, addresses) {
        // nfnetlink returns this errno if no module serves the subsystem.
        Err(error) if error.errno == Errno::INVAL && publishes => Err(error
            .during(DELETING)
            .hint("the kernel lacks ctnetlink: modprobe nf_conntrack_netlink")),
        Err(error) if error.errno == Errno::INVAL => Ok(()),
        outcome => outcome.map_err(|error| error.during(DELETING)),
    }
}

const DELETING: &str = "delete conntrack entries of UDP";

fn try_delete_stale(
    netfilter: &Socket,
    route: &Socket,
    forwards: &[Forward],
    addresses: &[IpAddr],
) -> NetlinkResult<()> {
    if count(netfilter)? == 0 {
        return Ok(());
    }
    let mut known = BTreeMap::new();
    let mut entries = Vec::new();
    for family in FAMILIES {
        let published = forwards.iter().any(|forward| route::family(forward.host) == family);
        if published || addresses.iter().any(|address| route::family(*address) == family) {
            entries.extend(list(netfilter, family)?);
        }
    }
    for entry in entries {
        // Another host, to which this one forwards, may have the same port.
        let is_stale = entry.is_of(addresses)
            || entry.is_for(forwards) && is_local(route, &mut known, entry.original.destination)?;
        if is_stale {
            entry.delete(netfilter)?;
        }
    }
    Ok(())
}

fn is_local(
    route: &Socket,
    known: &mut BTreeMap<IpAddr, bool>,
    address: IpAddr,
) -> NetlinkResult<bool> {
    if let Some(known) = known.get(&address) {
        return Ok(*known);
    }
    let local = route::is_local(route, address)?;
    known.insert(address, local);
    Ok(local)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::message::HEADER;

    fn body(protocol: u8) -> Vec<u8> {
        let ip = |m: Message| {
            m.address(1, IpAddr::from([192, 0, 2, 1])).address(2, IpAddr::from([192, 0, 2, 2]))
        };
        let proto = |m: Message| m.bytes(1, &[protocol]).bytes(3, &53u16.to_be_bytes());
        let entry = message(0, 2)
            .nest(TUPLE_ORIG, |m| m.nest(1, ip).nest(2, proto))
            .nest(TUPLE_REPLY, |m| m.nest(1, ip).nest(2, proto))
            .big(ID, 7);
        entry.finish(1)[HEADER..].to_vec()
    }

    #[test]
    fn an_entry_of_udp_is_read_with_the_attributes_that_name_the_entry() {
        let entry = Entry::read(&body(17)).unwrap();
        let expected = Tuple {
            source: [192, 0, 2, 1].into(),
            destination: [192, 0, 2, 2].into(),
            destination_port: 53,
        };
        assert_eq!((entry.family, &entry.original), (2, &expected));
        assert_eq!(entry.name[1], (ID, vec![0, 0, 0, 7]));
        assert!(Entry::read(&body(6)).is_none(), "TCP");
        for cut in 0..body(17).len() {
            assert!(Entry::read(&body(17)[..cut]).is_none_or(|entry| entry.name.len() < 2));
        }
    }
}
