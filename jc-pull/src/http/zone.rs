//! Zones of addresses. A registry may name no host that is nearer to this machine than the registry
//! itself, such as a service of this machine or its network. Names are resolved here, so the rule holds
//! for the address of the connection, whatever a name server answers later.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as StdError;
use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::parallel::lock;

/// Kinds of addresses, from those that every machine reaches to those that only this machine reaches.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Zone {
    /// All addresses of no other zone.
    Public,
    /// A network behind a router (RFC 1918, RFC 4193, RFC 6598), or a reserved address.
    Private,
    /// A single link (RFC 3927, RFC 4291). Clouds have metadata services there.
    LinkLocal,
    /// This machine.
    Loopback,
}

impl Zone {
    /// The zone of an address. An IPv6 address that stands for an IPv4 address has its zone.
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

/// The zone of an address in a URL. The result is `None` if the URL has a name.
pub fn literal(url: &Url) -> Option<Zone> {
    let host = url.host_str()?;
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    // RFC 6761: localhost is this machine.
    if host == "localhost" { Some(Zone::Loopback) } else { host.parse().ok().map(Zone::of) }
}

/// The most public zone that each name has had.
#[derive(Debug, Default)]
pub struct Zones(Mutex<BTreeMap<String, Zone>>);

impl Zones {
    /// The zone of the host of a URL. The zone of a name that a proxy resolved is public.
    pub fn of(&self, url: &Url) -> Zone {
        let known = || lock(&self.0).get(url.host_str().unwrap_or_default()).copied();
        literal(url).or_else(known).unwrap_or(Zone::Public)
    }

    fn record(&self, name: &str, zone: Zone) {
        let mut zones = lock(&self.0);
        let known = zones.entry(name.to_owned()).or_insert(zone);
        *known = zone.min(*known);
    }
}

/// An address that a registry may not name.
#[derive(Debug)]
pub struct Forbidden(pub Zone);

impl Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, which this registry may not name", self.0)
    }
}

impl StdError for Forbidden {}

/// The resolver of the names of one client.
#[derive(Clone)]
pub struct Resolver(Arc<Shared>);

struct Shared {
    /// The nearest zone for the names in `limited`.
    limit: Option<Zone>,
    /// The names in URLs. All other names are those of proxies, which the caller chose.
    limited: Mutex<BTreeSet<String>>,
    zones: Arc<Zones>,
    resolver: Mutex<Option<TokioResolver>>,
}

impl Resolver {
    /// A resolver with a limit, which records the zones of names in `zones`.
    pub fn new(limit: Option<Zone>, zones: Arc<Zones>) -> Self {
        let (limited, resolver) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Shared { limit, limited, zones, resolver }))
    }

    /// Applies the limit to the host of a URL.
    pub fn limit(&self, url: &Url) {
        if self.0.limit.is_some() {
            lock(&self.0.limited).insert(url.host_str().unwrap_or_default().to_owned());
        }
    }
}

impl Shared {
    /// The inner resolver, with the configuration of `/etc/resolv.conf`. The runtime that uses it has to
    /// make it.
    fn resolver(&self) -> Result<TokioResolver, Box<dyn StdError + Send + Sync>> {
        let mut made = lock(&self.resolver);
        if let Some(resolver) = made.as_ref() {
            return Ok(resolver.clone());
        }
        let mut builder = TokioResolver::builder_tokio()?;
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
        Ok(made.insert(builder.build()?).clone())
    }

    /// The addresses of `name` that are allowed.
    fn admit(&self, name: &str, found: Vec<IpAddr>) -> Result<Vec<IpAddr>, Forbidden> {
        let limit = self.limit.filter(|_| lock(&self.limited).contains(name));
        let nearest = found.iter().map(|a| Zone::of(*a)).min();
        if let Some(zone) = nearest {
            self.zones.record(name, zone);
        }
        let Some(limit) = limit else { return Ok(found) };
        match nearest {
            Some(zone) if zone > limit => Err(Forbidden(zone)),
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
