//! The program's network namespace: loopback only, with a table that leads all connections to the proxy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use ipnetwork::IpNetwork;
use jc_unshare::{Context, Result};
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, getsockname, listen, socket_with, sockopt,
};

use super::names::{OWN_V4, OWN_V6};
use super::packets;
use super::rule::DNS;
use crate::linux::link::{self, LOOPBACK};
use crate::linux::netlink::Socket;
use crate::linux::nft::{Batch, Hook, explain};
use crate::linux::{route, sysctl, wait};

const TABLE: &str = "jc-egress";
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
/// The most connections that the kernel completes before they are accepted.
const BACKLOG: i32 = 4096;

/// Time-outs of connection tracking, in seconds. A connection that is over is forgotten soon, as there may be
/// thousands a second; a half-closed one is kept, since either side may wait for hours.
const TIMEOUTS: [(&str, &str); 5] = [
    ("tcp_timeout_time_wait", "5"),
    ("tcp_timeout_close_wait", "43200"),
    ("tcp_timeout_fin_wait", "43200"),
    ("udp_timeout", "5"),
    ("udp_timeout_stream", "10"),
];

/// The sockets of the proxy inside of the namespace, first that of IPv4.
#[derive(Debug, Default)]
pub struct Sockets {
    /// Sockets at which connections arrive.
    pub listeners: Vec<OwnedFd>,
    /// Sockets at which queries arrive as datagrams.
    pub resolvers: Vec<OwnedFd>,
    /// The socket at which copies of rejected packets arrive, if there is a log.
    pub packets: Option<OwnedFd>,
}

/// Sets up the network namespace of this process.
pub fn set_up(has_log: bool) -> Result<Sockets> {
    let has_v6 = sysctl::has_ipv6()?;
    let route = Socket::route()?;
    let own = [(IpAddr::from(OWN_V4), 32), (IpAddr::from(OWN_V6), 128)];
    let mut messages = vec![link::set_up(LOOPBACK)];
    for (address, prefix) in own.into_iter().filter(|(address, _)| address.is_ipv4() || has_v6) {
        let network = IpNetwork::new(address, prefix).unwrap_or(address.into());
        messages.push(route::add_address(LOOPBACK, network));
        messages.push(route::add_default_on(LOOPBACK, address));
    }
    route.send_all(messages).map_err(|refusal| refusal.during("configure lo"))?;
    if has_v6 {
        wait::wait_until_local(&route, OWN_V6.into())?;
    }
    let mut sockets = sockets(has_v6)?;
    sockets.packets = has_log.then(packets::socket).transpose()?;
    let port = match sockets.listeners.first() {
        Some(listener) => port(listener)?,
        None => 0,
    };
    add_table(&Socket::netfilter()?, port, has_log)?;
    for (name, seconds) in TIMEOUTS {
        sysctl::ensure_if_present(&format!("netfilter/nf_conntrack_{name}"), seconds)?;
    }
    Ok(sockets)
}

/// Sockets on a free port of the loopback addresses, to which the table leads. The namespace is new, so that
/// the port is free in each protocol.
fn sockets(has_v6: bool) -> Result<Sockets> {
    let mut sockets = Sockets::default();
    let mut free = 0;
    let addresses = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
    for address in addresses.into_iter().filter(|address| address.is_ipv4() || has_v6) {
        let listener = socket(SocketType::STREAM, SocketAddr::new(address, free))?;
        // An accepted socket inherits the option: bytes are passed on as they come.
        sockopt::set_tcp_nodelay(&listener, true).op("TCP_NODELAY")?;
        listen(&listener, BACKLOG).op("listen")?;
        free = port(&listener)?;
        sockets.listeners.push(listener);
        sockets.resolvers.push(socket(SocketType::DGRAM, SocketAddr::new(address, free))?);
    }
    Ok(sockets)
}

fn socket(kind: SocketType, address: SocketAddr) -> Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, kind, flags, None).op("socket")?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true).op("IPV6_V6ONLY")?;
    }
    bind(&socket, &address).op("bind")?;
    Ok(socket)
}

fn port(socket: impl AsFd) -> Result<u16> {
    let name = getsockname(socket).and_then(SocketAddr::try_from).op("getsockname")?;
    Ok(name.port())
}

/// The rules. Connections to the namespace's own addresses are those of the program with itself. All else but
/// TCP is rejected, and the sender has the error at once.
fn add_table(socket: &Socket, port: u16, has_log: bool) -> Result<()> {
    let mut batch = Batch::new();
    batch.table(TABLE);
    batch.chain(TABLE, "redirect", Hook::Output);
    for protocol in [IPPROTO_TCP, IPPROTO_UDP] {
        batch.rule(TABLE, "redirect", |r| r.protocol(protocol).with_port(DNS).redirect_to(port));
    }
    batch.rule(TABLE, "redirect", |r| r.for_this_host().accept());
    batch.rule(TABLE, "redirect", |r| r.protocol(IPPROTO_TCP).redirect_to(port));
    batch.chain(TABLE, "send", Hook::Sent);
    batch.rule(TABLE, "send", |r| r.for_this_host().accept());
    batch.rule(TABLE, "send", |r| {
        if has_log { r.log(packets::GROUP, packets::LENGTH).reject() } else { r.reject() }
    });
    explain(batch.commit(socket), "make the nft rules")
}
