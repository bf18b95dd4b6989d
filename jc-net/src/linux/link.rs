//! Links: their messages of rtnetlink(7).

use std::fmt;
use std::str::FromStr;

use jc_unshare::Result;
use rustix::io::Errno;

use crate::linux::message::{Attributes, Message};
use crate::linux::netlink::{CREATE, EXCL, NetlinkResult, Socket};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_GETNSID: u16 = 90;
const RTM_NEWLINKPROP: u16 = 108;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_PID: u16 = 19;
const IFLA_IFALIAS: u16 = 20;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_PROP_LIST: u16 = 52;
const IFLA_ALT_IFNAME: u16 = 53;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;

const NETNSA_NSID: u16 = 1;

const IFF_UP: u32 = 1;
const IF_OPER_UP: u8 = 6;
/// Omits the counters, which are the largest part of an answer.
const RTEXT_FILTER_SKIP_STATS: u32 = 8;
/// The address family of requests, except for properties of a port of a bridge.
const AF_UNSPEC: u8 = 0;
const AF_BRIDGE: u8 = 7;

/// The loopback interface is the first of every network namespace.
pub const LOOPBACK: u32 = 1;

/// ifinfomsg: family, index, flags, and the mask of flags to change.
fn header(family: u8, index: u32, flags: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[0] = family;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&flags.to_ne_bytes());
    header
}

/// The hardware address of a link.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let byte = |part: &str| (part.len() == 2).then(|| u8::from_str_radix(part, 16).ok())?;
        let bytes: Option<Vec<u8>> = word.split(':').map(byte).collect();
        let bytes = bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
        match bytes {
            None => Err("not six bytes as in 02:00:00:00:00:01".to_owned()),
            Some([first, ..]) if first & 1 == 1 => Err("a multicast address".into()),
            Some([0, 0, 0, 0, 0, 0]) => Err("the zero address".to_owned()),
            Some(bytes) => Ok(Self(bytes)),
        }
    }
}

/// The attributes of a link.
#[derive(Clone, Debug)]
pub struct Link {
    /// The index of the link in its namespace.
    pub index: u32,
    /// The name of the link.
    pub name: String,
    /// The alternative names of the link.
    pub others: Vec<String>,
    /// The type, such as `bridge` or `veth`. A physical device has none.
    pub kind: String,
    /// The alias, a text that the creator has set.
    pub alias: String,
    /// The index of the bridge whose port the link is.
    pub master: Option<u32>,
    /// The MTU in bytes.
    pub mtu: u32,
    /// Whether the link is set up.
    pub up: bool,
    /// Whether the link is set up, has a carrier, and can send.
    pub ready: bool,
    /// Whether the sysctl disable_ipv6 of the link is set.
    pub without_v6: bool,
    /// The ID of the namespace of the peer, as this namespace numbers it.
    pub peer_namespace: Option<i32>,
}

impl Link {
    /// Reads an answer to `RTM_GETLINK`.
    pub fn read(body: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u32::from_ne_bytes(body.get(at..at + 4)?.try_into().ok()?));
        let all = Attributes(body.get(16..)?);
        let others = all.nested(IFLA_PROP_LIST).all().filter(|(kind, _)| *kind == IFLA_ALT_IFNAME);
        Some(Self {
            index: number(4)?,
            name: all.string(IFLA_IFNAME)?,
            others: others.filter_map(|(_, name)| crate::linux::message::text(name)).collect(),
            kind: all.nested(IFLA_LINKINFO).string(IFLA_INFO_KIND).unwrap_or_default(),
            alias: all.string(IFLA_IFALIAS).unwrap_or_default(),
            master: all.number(IFLA_MASTER),
            mtu: all.number(IFLA_MTU)?,
            up: number(8)? & IFF_UP != 0,
            ready: all.get(IFLA_OPERSTATE) == Some(&[IF_OPER_UP]),
            without_v6: disables_v6(all).unwrap_or(false),
            peer_namespace: all.number(IFLA_LINK_NETNSID).map(|number| number as i32),
        })
    }
}

/// Reads a setting of IPv6 (`enum` of `linux/ipv6.h`) that comes with a link.
fn disables_v6(link: Attributes<'_>) -> Option<bool> {
    const IFLA_AF_SPEC: u16 = 26;
    const AF_INET6: u16 = 10;
    const IFLA_INET6_CONF: u16 = 2;
    const DEVCONF_DISABLE_IPV6: usize = 26;
    let all = link.nested(IFLA_AF_SPEC).nested(AF_INET6).get(IFLA_INET6_CONF)?;
    let at = DEVCONF_DISABLE_IPV6 * 4;
    Some(all.get(at..at + 4)? != [0; 4])
}

/// The link with a name. `None`: no link has the name.
pub fn by_name(socket: &Socket, name: &str) -> NetlinkResult<Option<Link>> {
    let message = Message::new(RTM_GETLINK, 0, &header(AF_UNSPEC, 0, 0))
        .string(IFLA_IFNAME, name)
        .number(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    socket.get(message, Link::read)
}

/// The link with an index. `None`: no link has the index.
pub fn by_index(socket: &Socket, index: u32) -> NetlinkResult<Option<Link>> {
    let message = Message::new(RTM_GETLINK, 0, &header(AF_UNSPEC, index, 0))
        .number(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    socket.get(message, Link::read)
}

/// All links, or the ports of one bridge.
pub fn list(socket: &Socket, bridge: Option<u32>) -> NetlinkResult<Vec<Link>> {
    let message = || {
        Message::new(RTM_GETLINK, 0, &header(AF_UNSPEC, 0, 0))
            .number(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
            .maybe(bridge, |m, bridge| m.number(IFLA_MASTER, bridge))
    };
    socket.dump(message, Link::read)
}

/// A veth pair: one end is a port of a bridge in this namespace, the peer is in another namespace.
#[derive(Debug)]
pub struct Pair<'a> {
    /// The name of this end.
    pub name: &'a str,
    /// The index of the bridge.
    pub bridge: u32,
    /// The process whose network namespace gets the peer.
    pub pid: u32,
    /// The name of the peer.
    pub peer: &'a str,
    /// The hardware address of the peer.
    pub mac: Mac,
    /// The MTU in bytes.
    pub mtu: u32,
    /// Whether this end stays down.
    pub down: bool,
}

/// Adds a veth pair (veth(4)). EEXIST: a link has the name. The peer stays down, because the kernel would set it up
/// before this end exists, which fails. Each end has one queue. The kernel's default is a queue for each possible CPU.
pub fn add_pair(socket: &Socket, pair: &Pair<'_>) -> NetlinkResult<()> {
    let flags = if pair.down { 0 } else { IFF_UP };
    let peer = |message: Message| {
        message
            .string(IFLA_IFNAME, pair.peer)
            .bytes(IFLA_ADDRESS, &pair.mac.0)
            .number(IFLA_MTU, pair.mtu)
            .number(IFLA_NUM_TX_QUEUES, 1)
            .number(IFLA_NUM_RX_QUEUES, 1)
            .number(IFLA_NET_NS_PID, pair.pid)
    };
    let message = Message::new(RTM_NEWLINK, CREATE | EXCL, &header(AF_UNSPEC, 0, flags))
        .string(IFLA_IFNAME, pair.name)
        .number(IFLA_MTU, pair.mtu)
        .number(IFLA_NUM_TX_QUEUES, 1)
        .number(IFLA_NUM_RX_QUEUES, 1)
        .number(IFLA_MASTER, pair.bridge)
        .nest(IFLA_LINKINFO, |m| {
            m.string(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |m| {
                m.nest_with_header(VETH_INFO_PEER, &header(AF_UNSPEC, 0, 0), peer)
            })
        });
    socket.ask(message)
}

/// A bridge to add.
pub struct NewBridge<'a> {
    pub name: &'a str,
    pub mac: Mac,
    pub mtu: u32,
    pub alias: &'a str,
}

/// Adds a bridge that is down, and its alias, in one datagram, which no signal interrupts. No link may have the name: an
/// existing link would get the alias.
pub fn add_bridge(socket: &Socket, bridge: &NewBridge<'_>) -> NetlinkResult<()> {
    let add = Message::new(RTM_NEWLINK, CREATE | EXCL, &header(AF_UNSPEC, 0, 0))
        .string(IFLA_IFNAME, bridge.name)
        .bytes(IFLA_ADDRESS, &bridge.mac.0)
        .number(IFLA_MTU, bridge.mtu)
        .nest(IFLA_LINKINFO, |m| m.string(IFLA_INFO_KIND, "bridge"));
    let alias = Message::new(RTM_SETLINK, 0, &header(AF_UNSPEC, 0, 0))
        .string(IFLA_IFNAME, bridge.name)
        .string(IFLA_IFALIAS, bridge.alias);
    socket.batch([add, alias])
}

/// Renames a link that is down. EEXIST: another link has the name.
pub fn rename(socket: &Socket, index: u32, name: &str) -> NetlinkResult<()> {
    let message = Message::new(RTM_SETLINK, 0, &header(AF_UNSPEC, index, 0));
    socket.ask(message.string(IFLA_IFNAME, name))
}

/// Moves a link to the network namespace of an open file, under a name in which the kernel replaces `%d`. The link is
/// down there. EEXIST: another link has the name.
pub fn move_to(socket: &Socket, index: u32, namespace: u32, name: &str) -> NetlinkResult<()> {
    let message = Message::new(RTM_SETLINK, 0, &header(AF_UNSPEC, index, 0));
    socket.ask(message.number(IFLA_NET_NS_FD, namespace).string(IFLA_IFNAME, name))
}

/// Adds an alternative name to a link. EEXIST: another link has the name.
pub fn add_name(socket: &Socket, link: &str, name: &str) -> NetlinkResult<()> {
    let message = Message::new(RTM_NEWLINKPROP, CREATE | EXCL, &header(AF_UNSPEC, 0, 0))
        .string(IFLA_IFNAME, link)
        .nest(IFLA_PROP_LIST, |m| m.string(IFLA_ALT_IFNAME, name));
    socket.ask(message)
}

/// A flag of a port of a bridge (bridge(8)).
#[derive(Clone, Copy, Debug)]
pub enum PortFlag {
    /// The port exchanges no packets with other isolated ports.
    Isolated = IFLA_BRPORT_ISOLATED as isize,
    /// The bridge sends packets back to the port from which they come: a container reaches its own published ports.
    Hairpin = IFLA_BRPORT_MODE as isize,
}

/// Sets a flag of a port of a bridge.
pub fn set_port_flag(socket: &Socket, index: u32, flag: PortFlag) -> NetlinkResult<()> {
    let message = Message::new(RTM_SETLINK, 0, &header(AF_BRIDGE, index, 0))
        .nest(IFLA_PROTINFO, |m| m.bytes(flag as u16, &[1]));
    socket.ask(message)
}

/// Sets the alias of a link.
pub fn set_alias(socket: &Socket, index: u32, alias: &str) -> NetlinkResult<()> {
    let message = Message::new(RTM_SETLINK, 0, &header(AF_UNSPEC, index, 0));
    socket.ask(message.string(IFLA_IFALIAS, alias))
}

/// The message that sets a link up.
pub fn set_up(index: u32) -> Message {
    Message::new(RTM_NEWLINK, 0, &header(AF_UNSPEC, index, IFF_UP))
}

fn has_dead_peer(socket: &Socket, link: &Link) -> NetlinkResult<bool> {
    const AF_UNSPEC: [u8; 4] = [0; 4]; // rtgenmsg, filled up
    let Some(number) = link.peer_namespace else { return Ok(false) };
    if number < 0 {
        return Ok(true);
    }
    let message = Message::new(RTM_GETNSID, 0, &AF_UNSPEC).number(NETNSA_NSID, number as u32);
    Ok(socket.get(message, |_| Some(()))?.is_none())
}

/// Whether the peer of a veth is in a namespace without processes. The kernel is about to remove both ends, which takes
/// some time.
pub fn is_dying(socket: &Socket, link: &Link) -> Result<bool> {
    has_dead_peer(socket, link)
        .map_err(|error| error.during(format_args!("look for the other end of {}", link.name)))
}

/// Removes a veth if [`is_dying`]. Returns whether that is so.
pub fn remove_if_dying(socket: &Socket, link: &Link) -> Result<bool> {
    if !is_dying(socket, link)? {
        return Ok(false);
    }
    match remove(socket, link.index) {
        Err(error) if error.errno == Errno::NODEV => {}
        removed => {
            removed.map_err(|error| error.during(format_args!("remove {}", link.name)))?;
        }
    }
    Ok(true)
}

/// Removes a link, and if the link is a veth its peer.
pub fn remove(socket: &Socket, index: u32) -> NetlinkResult<()> {
    socket.ask(Message::new(RTM_DELLINK, 0, &header(AF_UNSPEC, index, 0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardware_address_is_six_bytes_and_unicast() {
        assert_eq!("02:6a:00:0A:58:05".parse(), Ok(Mac([2, 0x6a, 0, 10, 0x58, 5])));
        assert_eq!(Mac([2, 0x6a, 0, 10, 0x58, 5]).to_string(), "02:6a:00:0a:58:05");
        for wrong in ["", "1:2:3:4:5:6", "02:00:00:00:00", "02:00:00:00:00:0g", "00:00:00:00:00:00"]
        {
            assert!(wrong.parse::<Mac>().is_err(), "{wrong}");
        }
        assert!("01:00:00:00:00:01".parse::<Mac>().is_err(), "multicast");
    }
}
