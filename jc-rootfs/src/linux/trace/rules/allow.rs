//! `--allow`: rules for jc-egress.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jc_unshare::{Error, Result};

use super::super::facts::Facts;

/// The port of the resolver, which jc-egress serves itself.
const DNS: u16 = 53;

/// The rules, one a line. Connections by name come from the log of jc-egress, and its synthetic addresses are left out.
/// A report with synthetic addresses only is an error.
pub fn allow(facts: &Facts) -> Result<String> {
    let connected = facts.addresses.iter().filter(|address| {
        !address.is_bound && address.is_stream() && !matches!(address.port, 0 | DNS)
    });
    let connected = connected.filter_map(|address| Some((address.address.parse().ok()?, address)));
    let (synthetic, real): (Vec<_>, Vec<_>) =
        connected.filter(|(ip, _)| !is_own(*ip)).partition(|(ip, _)| is_synthetic(*ip));
    if !synthetic.is_empty() && facts.names.is_empty() {
        return Err(Error::new("the reports lack the names of jc-egress").hint(
            "jc-run --egress-log FILE, or jc-egress --log FILE and jc-trace --egress-log FILE",
        ));
    }
    let real = real.into_iter().map(|(_, address)| (&address.address, address.port));
    let names = facts.names.iter().map(|(name, port)| (name, *port));
    let rules: BTreeSet<String> = real
        .chain(names)
        .map(|(host, port)| {
            if host.contains(':') {
                format!("[{host}]:{port}\n")
            } else {
                format!("{host}:{port}\n")
            }
        })
        .collect();
    Ok(rules.into_iter().collect())
}

/// Whether an address leads to the program itself.
fn is_own(address: IpAddr) -> bool {
    let address = address.to_canonical();
    address.is_loopback() || address.is_unspecified()
}

/// Whether an address stands for a name (jc-egress(1)).
fn is_synthetic(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => matches!(address.octets(), [198, 18 | 19, ..]),
        IpAddr::V6(address) => matches!(address.segments(), [0xFD6A, 0x6365, 0x6772, 0, ..]),
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
        assert_eq!(allow(&facts).unwrap(), "203.0.113.7:5432\n[2001:db8::1]:22\npypi.org:443\n");
        assert!(allow(&Facts::of(&[&lines[2]])).is_err());
        assert_eq!(allow(&Facts::of(&[&lines[1]])).unwrap(), "");
    }
}
