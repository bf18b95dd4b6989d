//! `--allow`: rules for jc-egress.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::facts::{AddressFact, Facts};

/// The port of the resolver, which jc-egress serves itself.
const DNS: u16 = 53;

/// The rules, one a line. Connections by name come from the log of jc-egress, and its synthetic addresses are left out.
pub fn allow(facts: &Facts) -> String {
    let mut rules: BTreeSet<String> = BTreeSet::new();
    rules.extend(facts.names.iter().map(|(name, port)| match name.contains(':') {
        true => format!("[{name}]:{port}\n"),
        false => format!("{name}:{port}\n"),
    }));
    for connected in facts.addresses.iter().filter(|address| !address.is_bound) {
        let is_stream = connected.kind.as_deref().is_none_or(|kind| kind == "stream");
        let Some(address) = address_of(connected) else { continue };
        if is_stream && !matches!(connected.port, 0 | DNS) && !is_inside(address) {
            rules.insert(match address {
                IpAddr::V4(address) => format!("{address}:{}\n", connected.port),
                IpAddr::V6(address) => format!("[{address}]:{}\n", connected.port),
            });
        }
    }
    rules.into_iter().collect()
}

/// The address of a connection of the Internet.
fn address_of(connected: &AddressFact) -> Option<IpAddr> {
    connected.address.parse().ok()
}

/// Whether an address leads to the program itself, or is synthetic (jc-egress(1)).
fn is_inside(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            address.is_loopback()
                || address.is_unspecified()
                || matches!(address.octets(), [198, 18 | 19, ..])
        }
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => is_inside(address.into()),
            None => {
                address.is_loopback()
                    || address.is_unspecified()
                    || matches!(address.segments(), [0xFD6A, 0x6365, 0x6772, 0, ..])
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_to_others_become_rules() {
        let connect = |address: &str, port: u16, kind: &str| {
            format!(
                r#"{{"event":"connect","family":"x","address":"{address}","port":{port},"type":"{kind}"}}"#
            )
        };
        let lines = [
            connect("203.0.113.7", 5432, "stream"),
            connect("127.0.0.1", 80, "stream"),
            connect("198.18.0.3", 443, "stream"),
            connect("fd6a:6365:6772::3", 443, "stream"),
            connect("192.0.2.1", 53, "dgram"),
            connect("2001:db8::1", 22, "stream"),
            r#"{"event":"name","name":"pypi.org","port":443,"allowed":true}"#.to_owned(),
            r#"{"event":"name","name":"evil.example","port":443,"allowed":false}"#.to_owned(),
        ];
        let facts = Facts::of(&lines.each_ref().map(String::as_str));
        assert_eq!(allow(&facts), "203.0.113.7:5432\n[2001:db8::1]:22\npypi.org:443\n");
    }
}
