//! Addresses and routes: their messages of rtnetlink(7).

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use rustix::io::Errno;

use crate::linux::message::{Attributes, Message};
use crate::linux::netlink::{CREATE, EXCL, NetlinkResult, Socket};

const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 2;
const RT_SCOPE_UNIVERSE: u8 = 0;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RT_SCOPE_LINK: u8 = 253;
const RTA_TABLE: u16 = 15;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RTN_UNICAST: u8 = 1;

/// The number of an address's family.
pub fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

/// The address families of IPv4 and IPv6.
pub const FAMILIES: [u8; 2] = [AF_INET, AF_INET6];

/// The list of a family. A kernel without IPv6 has an empty list for IPv6.
fn unless_missing<T>(family: u8, answer: NetlinkResult<Vec<T>>) -> NetlinkResult<Vec<T>> {
    match answer {
        Err(error)
            if family == AF_INET6
                && matches!(error.errno, Errno::AFNOSUPPORT | Errno::OPNOTSUPP) =>
        {
            Ok(Vec::new())
        }
        answer => answer,
    }
}

/// The body of a message, if the message is of the family. A kernel without IPv6 answers with messages of other families.
fn of_family(family: u8, body: &[u8]) -> Option<&[u8]> {
    (body.first() == Some(&family)).then_some(body)
}

/// ifaddrmsg: family, prefix, flags, scope, index.
fn address_header(family: u8, prefix: u8, index: u32) -> [u8; 8] {
    let [a, b, c, d] = index.to_ne_bytes();
    [family, prefix, 0, RT_SCOPE_UNIVERSE, a, b, c, d]
}

/// The message that adds an address with its prefix length to a link, without duplicate address detection: the caller
/// knows that no other host has the address.
pub fn add_address(index: u32, address: IpNetwork) -> Message {
    let header = address_header(family(address.ip()), address.prefix(), index);
    let message = Message::new(RTM_NEWADDR, CREATE | EXCL, &header)
        .address(IFA_LOCAL, address.ip())
        .address(IFA_ADDRESS, address.ip());
    match address {
        IpNetwork::V4(network) => message.address(IFA_BROADCAST, network.broadcast().into()),
        IpNetwork::V6(_) => message.number(IFA_FLAGS, IFA_F_NODAD),
    }
}

/// The addresses of a link with their prefix lengths, except link-local ones.
pub fn addresses(socket: &Socket, index: u32) -> NetlinkResult<Vec<IpNetwork>> {
    addresses_with(socket, index, 0)
}

/// The addresses like [`addresses`] that have no lifetime.
pub fn permanent_addresses(socket: &Socket, index: u32) -> NetlinkResult<Vec<IpNetwork>> {
    const IFA_F_PERMANENT: u8 = 0x80;
    addresses_with(socket, index, IFA_F_PERMANENT)
}

/// The addresses with these flags.
fn addresses_with(socket: &Socket, index: u32, flags: u8) -> NetlinkResult<Vec<IpNetwork>> {
    let mut all = Vec::new();
    for family in FAMILIES {
        let message = || Message::new(RTM_GETADDR, 0, &address_header(family, 0, index));
        let has_flags = |body: &&[u8]| body.get(2).is_some_and(|own| own & flags == flags);
        let read = |body: &[u8]| {
            let body = of_family(family, body).filter(has_flags)?;
            read_address(body, index)
        };
        all.extend(unless_missing(family, socket.dump(message, read))?);
    }
    Ok(all)
}

/// Parses an answer to `RTM_GETADDR`. `None`: another link, or a link-local address.
pub fn read_address(body: &[u8], index: u32) -> Option<IpNetwork> {
    let all = Attributes(body.get(8..)?);
    let its_index = u32::from_ne_bytes(body.get(4..8)?.try_into().ok()?);
    let address = all.address(IFA_LOCAL).or_else(|| all.address(IFA_ADDRESS))?;
    let is_match = its_index == index && body.get(3) == Some(&RT_SCOPE_UNIVERSE);
    IpNetwork::new(address, *body.get(1)?).ok().filter(|_| is_match)
}

/// The message that adds a default route with this gateway.
pub fn add_default(index: u32, gateway: IpAddr) -> Message {
    let mut header = route_header(family(gateway));
    (header[4], header[5], header[7]) = (RT_TABLE_MAIN, RTPROT_STATIC, RTN_UNICAST);
    Message::new(RTM_NEWROUTE, CREATE | EXCL, &header)
        .address(RTA_GATEWAY, gateway)
        .number(RTA_OIF, index)
}

/// The message that adds the default route of a family, on a link without a gateway. Packets have `source` as
/// their source address.
pub fn add_default_on(index: u32, source: IpAddr) -> Message {
    let mut header = route_header(family(source));
    (header[4], header[5], header[7]) = (RT_TABLE_MAIN, RTPROT_STATIC, RTN_UNICAST);
    header[6] = RT_SCOPE_LINK;
    Message::new(RTM_NEWROUTE, CREATE | EXCL, &header)
        .number(RTA_OIF, index)
        .address(RTA_PREFSRC, source)
}

/// rtmsg: family, lengths, tos, table, protocol, scope, type, flags.
fn route_header(family: u8) -> [u8; 12] {
    let mut header = [0; 12];
    header[0] = family;
    header
}

/// Whether the kernel receives packets for an address. For an IPv6 address, the kernel starts to receive packets shortly
/// after the address is added.
pub fn is_local(socket: &Socket, address: IpAddr) -> NetlinkResult<bool> {
    const RTN_LOCAL: u8 = 2;
    let mut header = route_header(family(address));
    header[1] = if address.is_ipv4() { 32 } else { 128 };
    let question = Message::new(RTM_GETROUTE, 0, &header).address(RTA_DST, address);
    Ok(socket.get(question, |body| body.get(7).copied())? == Some(RTN_LOCAL))
}

/// A route of the main table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Route {
    /// The destination. `None`: a default route.
    pub to: Option<IpNetwork>,
    /// The index of the link, if the route has a single link.
    pub link: Option<u32>,
}

/// The routes of the main tables of both families.
pub fn routes(socket: &Socket) -> NetlinkResult<Vec<Route>> {
    let mut all = Vec::new();
    for family in FAMILIES {
        let message = || {
            Message::new(RTM_GETROUTE, 0, &route_header(family))
                .number(RTA_TABLE, RT_TABLE_MAIN.into())
        };
        let read = |body: &[u8]| of_family(family, body).and_then(read_route);
        all.extend(unless_missing(family, socket.dump(message, read))?);
    }
    Ok(all)
}

/// Reads an answer to `RTM_GETROUTE`: a route of the main table.
pub fn read_route(body: &[u8]) -> Option<Route> {
    let all = Attributes(body.get(12..)?);
    let (prefix, table) = (*body.get(1)?, u32::from(*body.get(4)?));
    let in_main = all.number(RTA_TABLE).unwrap_or(table) == u32::from(RT_TABLE_MAIN);
    let to = all.address(RTA_DST).and_then(|address| IpNetwork::new(address, prefix).ok());
    in_main.then_some(Route { to, link: all.number(RTA_OIF) })
}
