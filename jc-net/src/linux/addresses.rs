//! The addresses of a network namespace.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use jc_unshare::Result;

use crate::linux::link::{self, LOOPBACK};
use crate::linux::netlink::{NetlinkError, Socket};
use crate::linux::{route, sysctl};

/// The addresses of this network namespace: those of all links except loopback. If there are none, the addresses of
/// loopback are the result.
pub fn list(socket: &Socket) -> Result<Vec<IpNetwork>> {
    let doing = |error: NetlinkError| error.during("list addresses");
    let mut all = Vec::new();
    for link in link::list(socket, None).map_err(doing)? {
        if link.index != LOOPBACK {
            all.extend(route::addresses(socket, link.index).map_err(doing)?);
        }
    }
    if all.is_empty() {
        let v6 = sysctl::get("ipv6/conf/lo/disable_ipv6")?.as_deref() == Some("0");
        let v6 = v6.then_some(IpAddr::from(Ipv6Addr::LOCALHOST));
        let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST)].into_iter().chain(v6);
        let with_prefix =
            |address: IpAddr| IpNetwork::new(address, if address.is_ipv4() { 8 } else { 128 }).ok();
        all.extend(loopback.filter_map(with_prefix));
    }
    Ok(all)
}
