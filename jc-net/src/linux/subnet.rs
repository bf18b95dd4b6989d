//! Subnets of bridges, and the addresses in them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

/// The name of the default bridge.
pub const DEFAULT_BRIDGE: &str = "jc0";

/// The default subnets of a new bridge. The bridge gets the first subnet that overlaps no route.
pub fn defaults(bridge: &str) -> Vec<Ipv4Network> {
    let network = |a, b, prefix| Ipv4Network::new(Ipv4Addr::new(10, a, b, 0), prefix).ok();
    if bridge == DEFAULT_BRIDGE {
        network(88, 0, 16).into_iter().collect()
    } else {
        (0..=255).filter_map(|third| network(89, third, 24)).collect()
    }
}

/// A unique local prefix of 40 random bits (RFC 4193).
pub fn unique_local(random: [u8; 5]) -> Option<Ipv6Network> {
    let [a, b, c, d, e] = random;
    let bytes = [0xfd, a, b, c, d, e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    Ipv6Network::new(Ipv6Addr::from(bytes), 64).ok()
}

/// Parses a subnet with room for the gateway, which has the first address, and for a container.
pub fn parse(word: &str) -> Result<IpNetwork, String> {
    let network: IpNetwork = word.parse().map_err(|_| "not a subnet as 10.1.0.0/24".to_owned())?;
    if !word.contains('/') {
        return Err("without the length of its prefix, as in 10.1.0.0/24".to_owned());
    }
    if network.ip() != network.network() {
        return Err(format!("the subnet is {}/{}", network.network(), network.prefix()));
    }
    let unusable =
        network.ip().is_unspecified() || network.ip().is_multicast() || network.ip().is_loopback();
    match network {
        _ if unusable => Err("not a network that hosts can have".to_owned()),
        IpNetwork::V4(network) if network.prefix() > 30 => Err("too small: at most /30".to_owned()),
        IpNetwork::V6(network) if network.prefix() > 112 => {
            Err("too small: at most /112".to_owned())
        }
        network => Ok(network),
    }
}

/// The first address of a subnet, which is the address of the bridge.
pub fn gateway(subnet: IpNetwork) -> Option<IpNetwork> {
    let first: IpAddr = match subnet.network() {
        IpAddr::V4(address) => Ipv4Addr::from(u32::from(address) + 1).into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) + 1).into(),
    };
    IpNetwork::new(first, subnet.prefix()).ok()
}

/// Whether two networks have an address in common.
pub fn overlap(a: IpNetwork, b: IpNetwork) -> bool {
    a.contains(b.network()) || b.contains(a.network())
}

/// The offsets of addresses for containers in the subnet of a bridge: all but those of the network address, the gateway
/// and the broadcast address.
pub fn hosts(subnet: Ipv4Network) -> std::ops::Range<u32> {
    2..(u32::MAX >> subnet.prefix())
}

/// The address with an offset.
pub fn at(subnet: Ipv4Network, distance: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(subnet.network()) + distance)
}

/// The IPv6 address with the same offset in its subnet as an IPv4 address, reduced to the size of the subnet.
pub fn with_offset_of(address: Ipv4Addr, subnet: Ipv4Network, other: Ipv6Network) -> Ipv6Addr {
    let distance = u32::from(address) - u32::from(subnet.network());
    let room = u128::MAX.checked_shr(other.prefix().into()).unwrap_or(0);
    Ipv6Addr::from(u128::from(other.network()) + (u128::from(distance) & room))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_that_can_be_asked_for() {
        for good in ["10.1.0.0/24", "10.1.0.0/30", "fd00:1::/64", "fd00::/112"] {
            assert_eq!(parse(good).unwrap().to_string(), good);
        }
        for wrong in [
            "",
            "10.1.0.0",
            "10.1.0.1/24",
            "10.1.0.0/31",
            "10.1.0.0/33",
            "fd00::/113",
            "fd00::1/64",
            "127.0.0.0/8",
            "224.0.0.0/8",
            "0.0.0.0/0",
            "::/0",
            "x/24",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn networks_that_overlap_are_found() {
        let network = |word: &str| word.parse::<IpNetwork>().unwrap();
        for (a, b, does) in [
            ("10.0.0.0/8", "10.88.0.0/16", true),
            ("10.88.0.0/16", "10.0.0.0/8", true),
            ("10.88.0.0/16", "10.89.0.0/16", false),
            ("fd00::/64", "10.89.0.0/16", false),
            ("fd00::/64", "fd00::/16", true),
        ] {
            assert_eq!(overlap(network(a), network(b)), does, "{a} {b}");
        }
    }

    #[test]
    fn addresses_of_a_subnet() {
        let subnet: Ipv4Network = "10.1.0.0/29".parse().unwrap();
        let all: Vec<String> = hosts(subnet).map(|d| at(subnet, d).to_string()).collect();
        assert_eq!(all, ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"]);
        let other: Ipv6Network = "fd00:1::/64".parse().unwrap();
        assert_eq!(with_offset_of(at(subnet, 5), subnet, other).to_string(), "fd00:1::5");
        let gateway = gateway(subnet.into()).unwrap();
        assert_eq!(gateway.to_string(), "10.1.0.1/29");
        assert_eq!(hosts("10.1.0.0/30".parse().unwrap()), 2..3);
    }
}
