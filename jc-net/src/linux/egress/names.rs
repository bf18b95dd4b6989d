//! The synthetic addresses under which the program sees the hosts that it may reach.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

/// A network for tests of other networks (RFC 2544), which has no host of the Internet: 198.18.0.0/15.
const V4: u32 = 0xc612_0000;
const V4_MASK: u32 = 0xfffe_0000;
/// A unique local network (RFC 4193): fd6a:6365:6772::/64.
const V6: u128 = 0xfd6a_6365_6772 << 80;

/// The program's own addresses. They are not loopback addresses, for which getaddrinfo(3) with AI_ADDRCONFIG
/// finds no name.
pub const OWN_V4: Ipv4Addr = Ipv4Addr::from_bits(V4 + 1);
pub const OWN_V6: Ipv6Addr = Ipv6Addr::from_bits(V6 + 1);

/// The most names that have an address at a time. A new name takes the address of the oldest.
const MOST: u32 = 8192;
/// The first of the addresses of names, from the beginning of a network.
const FIRST: u32 = 256;

/// Whether the address is in a network that only the program's namespace has.
pub fn is_own(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.to_bits() & V4_MASK == V4,
        IpAddr::V6(address) => address.to_bits() >> 64 == V6 >> 64,
    }
}

/// Names and their addresses.
#[derive(Debug, Default)]
pub struct Names {
    by_number: Vec<Rc<str>>,
    by_name: HashMap<Rc<str>, u32>,
    next: u32,
}

impl Names {
    pub fn addresses(&mut self, name: &str) -> (Ipv4Addr, Ipv6Addr) {
        let number = match self.by_name.get(name) {
            Some(number) => *number,
            None => self.add(name),
        };
        let offset = FIRST + number;
        (Ipv4Addr::from_bits(V4 + offset), Ipv6Addr::from_bits(V6 + u128::from(offset)))
    }

    fn add(&mut self, name: &str) -> u32 {
        let (number, name) = (self.next, Rc::<str>::from(name));
        self.next = (number + 1) % MOST;
        match self.by_number.get_mut(number as usize) {
            Some(place) => drop(self.by_name.remove(&std::mem::replace(place, name.clone()))),
            None => self.by_number.push(name.clone()),
        }
        self.by_name.insert(name, number);
        number
    }

    /// The name that has the address.
    pub fn name(&self, address: IpAddr) -> Option<Rc<str>> {
        let offset = match address {
            IpAddr::V4(address) => address.to_bits().checked_sub(V4)?,
            IpAddr::V6(address) => address.to_bits().checked_sub(V6)?.try_into().ok()?,
        };
        self.by_number.get(offset.checked_sub(FIRST)? as usize).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_an_address_of_each_family() {
        let mut names = Names::default();
        let (v4, v6) = names.addresses("a.example");
        assert_eq!(
            (v4.to_string(), v6.to_string()),
            ("198.18.1.0".into(), "fd6a:6365:6772::100".into())
        );
        assert_eq!(names.addresses("a.example"), (v4, v6));
        assert_ne!(names.addresses("b.example").0, v4);
        assert_eq!(names.name(v4.into()).as_deref(), Some("a.example"));
        assert_eq!(names.name(v6.into()).as_deref(), Some("a.example"));
        for address in
            ["198.18.0.1", "198.18.255.255", "192.0.2.1", "fd6a:6365:6772::1", "::1", "ff02::1"]
        {
            assert_eq!(names.name(address.parse().unwrap()), None, "{address}");
        }
        assert!(
            is_own(OWN_V4.into())
                && is_own(OWN_V6.into())
                && is_own(v4.into())
                && is_own(v6.into())
        );
        assert!(!is_own("198.20.0.0".parse().unwrap()) && !is_own("fd6a::1".parse().unwrap()));
    }

    #[test]
    fn the_oldest_name_makes_room() {
        let mut names = Names::default();
        let (first, _) = names.addresses("0.example");
        for number in 1..=MOST {
            names.addresses(&format!("{number}.example"));
        }
        assert_eq!(names.name(first.into()).as_deref(), Some("8192.example"));
        assert_eq!((names.by_name.len(), names.by_number.len()), (MOST as usize, MOST as usize));
    }
}
