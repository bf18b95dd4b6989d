//! Addresses that a registry may name: no service of this machine or of its network for a registry
//! that is farther away. Names are resolved here, so the rule holds for the address that is
//! connected to, whatever a name server answers the next time.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as StdError;
use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Kinds of addresses, from those that everybody reaches to those that only this machine does.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Zone {
    /// Every address that is none of the others.
    Public,
    /// An address of a network behind a router (RFC 1918, RFC 4193, RFC 6598), or a reserved one.
    Private,
    /// Of one link (RFC 3927, RFC 4291), where clouds have their metadata services.
    LinkLocal,
    /// Of this machine.
    Loopback,
}

impl Zone {
    /// The kind of an address. An IPv6 address that stands for an IPv4 address is of its kind.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => match embedded(address) {
                Some(address) => Self::of_v4(address),
                None if address.is_loopback() || address.is_unspecified() => Self::Loopback,
                None if address.is_unicast_link_local() => Self::LinkLocal,
                // fec0::/10 are the site-local addresses of RFC 3513.
                None if address.is_unique_local() || address.segments()[0] & 0xffc0 == 0xfec0 => {
                    Self::Private
                }
                None => Self::Public,
            },
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        match address.octets() {
            // Linux connects to this machine for 0.0.0.0.
            [0 | 127, ..] => Self::Loopback,
            [169, 254, ..] => Self::LinkLocal,
            [10, ..]
            | [172, 16..=31, ..]
            | [192, 168, ..]
            | [100, 64..=127, ..]
            | [192, 0, 0, _]
            | [198, 18..=19, ..]
            | [240..=255, ..] => Self::Private,
            _ => Self::Public,
        }
    }
}

impl Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "a public address",
            Self::Private => "a private address",
            Self::LinkLocal => "a link-local address",
            Self::Loopback => "a loopback address",
        })
    }
}

/// The IPv4 address in an IPv6 address: mapped (RFC 4291), NAT64 (RFC 6052) or 6to4 (RFC 3056).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let last = |bytes: [u8; 16]| Ipv4Addr::new(bytes[12], bytes[13], bytes[14], bytes[15]);
    let bytes = address.octets();
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(last(bytes)),
        [0x2002, ..] => Some(Ipv4Addr::new(bytes[2], bytes[3], bytes[4], bytes[5])),
        _ => None,
    }
}

/// The address in a URL that has one in place of a name.
pub fn literal(url: &Url) -> Option<Zone> {
    let host = url.host_str()?;
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    // RFC 6761: localhost is this machine.
    if host == "localhost" { Some(Zone::Loopback) } else { host.parse().ok().map(Zone::of) }
}

/// The most public address that each name has had.
#[derive(Debug, Default)]
pub struct Zones(Mutex<BTreeMap<String, Zone>>);

impl Zones {
    /// The kind of a URL's host. A name that a proxy resolved counts as public.
    pub fn of(&self, url: &Url) -> Zone {
        let known = || lock(&self.0).get(url.host_str().unwrap_or_default()).copied();
        literal(url).or_else(known).unwrap_or(Zone::Public)
    }

    fn note(&self, name: &str, zone: Zone) {
        let mut zones = lock(&self.0);
        let known = zones.entry(name.to_owned()).or_insert(zone);
        *known = zone.min(*known);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A host that a registry may not name.
#[derive(Debug)]
pub struct Withheld(pub Zone);

impl Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, which this registry may not name", self.0)
    }
}

impl StdError for Withheld {}

/// Resolves the names of one client.
#[derive(Clone)]
pub struct Resolver(Arc<Shared>);

struct Shared {
    /// The kind of addresses that are the farthest in, for names in `limited`.
    limit: Option<Zone>,
    /// Names from URLs; every other name is a proxy's, which the caller chose.
    limited: Mutex<BTreeSet<String>>,
    zones: Arc<Zones>,
    resolver: Mutex<Option<TokioResolver>>,
}

impl Resolver {
    /// A resolver that keeps to `limit`, and notes in `zones` the addresses of names.
    pub fn new(limit: Option<Zone>, zones: Arc<Zones>) -> Self {
        let (limited, resolver) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Shared { limit, limited, zones, resolver }))
    }

    /// Keeps to the limit for a URL's host.
    pub fn limit(&self, url: &Url) {
        if self.0.limit.is_some() {
            lock(&self.0.limited).insert(url.host_str().unwrap_or_default().to_owned());
        }
    }
}

impl Shared {
    /// The resolver is made in the runtime that it is used in, with the configuration of
    /// `/etc/resolv.conf`.
    fn resolver(&self) -> Result<TokioResolver, Box<dyn StdError + Send + Sync>> {
        let mut made = lock(&self.resolver);
        if let Some(resolver) = made.as_ref() {
            return Ok(resolver.clone());
        }
        let mut builder = TokioResolver::builder_tokio()?;
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
        Ok(made.insert(builder.build()?).clone())
    }

    /// The addresses of `name` that may be connected to.
    fn admit(&self, name: &str, found: Vec<IpAddr>) -> Result<Vec<IpAddr>, Withheld> {
        let limit = self.limit.filter(|_| lock(&self.limited).contains(name));
        let nearest = found.iter().map(|a| Zone::of(*a)).min();
        if let Some(zone) = nearest {
            self.zones.note(name, zone);
        }
        let Some(limit) = limit else { return Ok(found) };
        match nearest {
            Some(zone) if zone > limit => Err(Withheld(zone)),
            _ => Ok(found.into_iter().filter(|a| Zone::of(*a) <= limit).collect()),
        }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            let found = shared.resolver()?.lookup_ip(name.as_str()).await?;
            let admitted = shared.admit(name.as_str(), found.iter().collect())?;
            let addresses = admitted.into_iter().map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(addresses) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(address: &str) -> Zone {
        Zone::of(address.parse().unwrap())
    }

    #[test]
    fn addresses_are_of_the_kind_that_their_rfc_says() {
        for (address, expected) in [
            ("93.184.216.34", Zone::Public),
            ("172.32.0.1", Zone::Public),
            ("100.128.0.1", Zone::Public),
            ("2606:2800::1", Zone::Public),
            ("64:ff9b::5db8:d822", Zone::Public),
            ("10.0.0.1", Zone::Private),
            ("172.16.0.1", Zone::Private),
            ("192.168.1.1", Zone::Private),
            ("100.64.0.1", Zone::Private),
            ("fd00::1", Zone::Private),
            ("fec0::1", Zone::Private),
            ("::ffff:10.0.0.1", Zone::Private),
            ("64:ff9b::a00:1", Zone::Private),
            ("2002:a00:1::", Zone::Private),
            ("169.254.169.254", Zone::LinkLocal),
            ("fe80::1", Zone::LinkLocal),
            ("127.9.9.9", Zone::Loopback),
            ("0.0.0.0", Zone::Loopback),
            ("::1", Zone::Loopback),
            ("::", Zone::Loopback),
            ("::ffff:127.0.0.1", Zone::Loopback),
        ] {
            assert_eq!(zone(address), expected, "{address}");
        }
        for (url, expected) in [
            ("http://localhost:1/", Some(Zone::Loopback)),
            ("http://0x7f.1/", Some(Zone::Loopback)),
            ("http://[fe80::1]:5/", Some(Zone::LinkLocal)),
            ("http://localhost.example/", None),
        ] {
            assert_eq!(literal(&Url::parse(url).unwrap()), expected, "{url}");
        }
    }

    #[test]
    fn a_name_keeps_the_most_public_address_that_it_had() {
        let (zones, url) = (Arc::new(Zones::default()), Url::parse("https://r.x/").unwrap());
        assert_eq!(zones.of(&url), Zone::Public);
        let resolver = Resolver::new(None, Arc::clone(&zones));
        let admit = |addresses: &[&str]| {
            let found = addresses.iter().map(|a| a.parse().unwrap()).collect();
            resolver.0.admit("r.x", found).unwrap();
        };
        admit(&["127.0.0.1"]);
        assert_eq!(zones.of(&url), Zone::Loopback);
        admit(&["10.0.0.1", "127.0.0.1"]);
        assert_eq!(zones.of(&url), Zone::Private);
        admit(&["127.0.0.1"]);
        assert_eq!(zones.of(&url), Zone::Private);
    }

    #[test]
    fn a_name_from_a_registry_loses_the_addresses_beyond_the_limit() {
        let resolver = Resolver::new(Some(Zone::Private), Arc::default());
        resolver.limit(&Url::parse("https://token.x/").unwrap());
        let admit = |name: &str, addresses: &[&str]| {
            let found = addresses.iter().map(|a| a.parse().unwrap()).collect();
            resolver.0.admit(name, found).map_err(|e| e.to_string())
        };
        let kept: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap()];
        assert_eq!(admit("token.x", &["127.0.0.1", "10.0.0.1"]).unwrap(), kept);
        let refused = admit("token.x", &["169.254.169.254", "::1"]).unwrap_err();
        assert_eq!(refused, "a link-local address, which this registry may not name");
        assert_eq!(admit("proxy.x", &["127.0.0.1"]).unwrap().len(), 1);
    }
}
