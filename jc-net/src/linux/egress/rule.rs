//! A rule: `HOST:PORT[,PORT...|*][:tls|http|tcp|ech]`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnetwork::IpNetwork;

use super::name;

/// The resolver answers on this port, whatever the address.
pub const DNS: u16 = 53;

/// The hosts of a rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Host {
    /// The host with this name.
    Name(String),
    /// Each host whose name ends in a dot and this name.
    Below(String),
    /// Each address of a network, by literal address.
    Network(IpNetwork),
    /// Each host that a rule of another kind may name.
    Any,
}

/// The form that the first bytes of a connection must have. A later one has bytes of the ones before, but for HTTP.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Check {
    /// TLS, with the name as SNI, and without encrypted_client_hello.
    Tls,
    /// The same, with encrypted_client_hello allowed.
    TlsEch,
    /// HTTP/1, with the name as Host of each request.
    Http,
    /// Anything.
    Tcp,
}

impl Check {
    /// The form on a port, where the rule says none.
    pub fn default(port: u16) -> Self {
        match port {
            443 => Self::Tls,
            80 => Self::Http,
            _ => Self::Tcp,
        }
    }

    /// The word in a rule.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::TlsEch => "ech",
            Self::Http => "http",
            Self::Tcp => "tcp",
        }
    }

    fn parse(word: &str) -> Result<Self, String> {
        let all = [Self::Tls, Self::TlsEch, Self::Http, Self::Tcp];
        let check = all.into_iter().find(|check| check.word() == word);
        check.ok_or_else(|| format!("{word:?}: not one of tls, http, tcp, ech"))
    }
}

/// A rule of the command line or a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    text: String,
    /// The hosts of the rule.
    pub host: Host,
    /// The ports; none for all.
    ports: Vec<u16>,
    check: Option<Check>,
    /// Whether the name may lead to an address that is not public.
    pub private: bool,
}

impl Rule {
    /// The rule of `--learn`, which allows all.
    pub fn any() -> Self {
        let (text, ports) = ("--learn".to_owned(), Vec::new());
        Self { text, host: Host::Any, ports, check: None, private: true }
    }

    /// A line of a file: a rule, or `private` and one of `--allow-private`.
    pub fn from_line(line: &str) -> Result<Self, String> {
        match line.trim().split_once(char::is_whitespace) {
            Some(("private", rule)) => Self::private(rule.trim_start()),
            _ => line.trim().parse(),
        }
    }

    /// Whether the rule is about this port.
    pub fn has_port(&self, port: u16) -> bool {
        port != DNS && (self.has_all_ports() || self.ports.contains(&port))
    }

    /// Whether the rule is about all ports.
    pub fn has_all_ports(&self) -> bool {
        self.ports.is_empty()
    }

    /// The length of the match with this host, by which the most exact rule is found; `None` if the rule is about other
    /// hosts.
    pub fn names(&self, name: &str) -> Option<usize> {
        match &self.host {
            Host::Name(own) if own == name => Some(usize::MAX),
            Host::Below(suffix) => {
                let label = name.strip_suffix(suffix.as_str())?.strip_suffix('.')?;
                (!label.is_empty()).then_some(suffix.len())
            }
            Host::Any => (name::from_user(name).as_deref() == Some(name)).then_some(0),
            _ => None,
        }
    }

    /// Whether the rule allows the literal address.
    pub fn has_address(&self, address: IpAddr) -> bool {
        match self.host {
            Host::Network(network) => network.contains(address),
            Host::Any => true,
            _ => false,
        }
    }

    /// The check of first bytes on this port of a host with a name.
    pub fn check(&self, port: u16) -> Check {
        self.check.unwrap_or_else(|| Check::default(port))
    }

    /// The rule of `--allow-private`.
    pub fn private(word: &str) -> Result<Self, String> {
        let rule: Self = word.parse()?;
        match rule.host {
            Host::Network(_) => Err("addresses are dialled as they are: --allow".to_owned()),
            _ => Ok(Self { private: true, ..rule }),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let (host, rest) = split_host(word)?;
        let (ports, check) = rest.split_once(':').map_or((rest, None), |(a, b)| (a, Some(b)));
        let host = parse_host(host)?;
        let check = check.map(Check::parse).transpose()?;
        if check.is_some_and(|check| check != Check::Tcp) && matches!(host, Host::Network(_)) {
            return Err("an address is dialled without a check of its first bytes".to_owned());
        }
        Ok(Self { text: word.to_owned(), host, ports: parse_ports(ports)?, check, private: false })
    }
}

/// `HOST:REST`, where an IPv6 address stands in brackets.
fn split_host(word: &str) -> Result<(&str, &str), String> {
    const FORM: &str = "not HOST:PORT[,PORT...][:tls|http|tcp|ech]";
    match word.strip_prefix('[') {
        None => word.split_once(':').ok_or(FORM.to_owned()),
        Some(inner) => inner.split_once("]:").ok_or(FORM.to_owned()),
    }
}

fn parse_host(word: &str) -> Result<Host, String> {
    if let Ok(address) = word.parse::<IpAddr>() {
        return usable(IpNetwork::from(address));
    }
    if word.contains('/') {
        let network: IpNetwork = word.parse().map_err(|_| format!("{word}: not a subnet"))?;
        let base = IpNetwork::new(network.network(), network.prefix());
        return match base {
            Ok(base) if base.ip() != network.ip() => Err(format!("the subnet is {base}")),
            _ => usable(network),
        };
    }
    let (make, word): (fn(String) -> Host, _) = match word.strip_prefix("*.") {
        Some(suffix) => (Host::Below, suffix),
        None => (Host::Name, word),
    };
    name::from_user(word).map(make).ok_or_else(|| format!("{word:?}: not the name of a host"))
}

/// Refuses networks that never lead outside.
fn usable(network: IpNetwork) -> Result<Host, String> {
    let ip = network.ip();
    let mapped = matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    if mapped {
        return Err(format!("{ip}: the kernel sends it by IPv4, so name the IPv4 address"));
    }
    let is_inside = (ip.is_loopback() && network.prefix() >= 8) || super::names::is_own(ip);
    if is_inside && network.prefix() > 0 {
        Err(format!("{network}: leads to the program's own network namespace"))
    } else {
        Ok(Host::Network(network))
    }
}

fn parse_ports(word: &str) -> Result<Vec<u16>, String> {
    if word == "*" {
        return Ok(Vec::new());
    }
    word.split(',')
        .map(|port| match port.parse() {
            Ok(DNS) => Err(format!("port {DNS}: all of it goes to jc-egress's own resolver")),
            Ok(number @ 1..) if port.bytes().all(|b| b.is_ascii_digit()) => Ok(number),
            _ => Err(format!("{port:?}: not a port")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(word: &str) -> Rule {
        word.parse().unwrap_or_else(|e| panic!("{word}: {e}"))
    }

    #[test]
    fn rules_say_host_ports_and_check() {
        for (word, port, check) in [
            ("github.com:443", 443, Check::Tls),
            ("github.com:80,443", 80, Check::Http),
            ("github.com:22", 22, Check::Tcp),
            ("github.com:*", 443, Check::Tls),
            ("github.com:*", 9418, Check::Tcp),
            ("github.com:443:tcp", 443, Check::Tcp),
            ("github.com:8443:tls", 8443, Check::Tls),
            ("github.com:8080:http", 8080, Check::Http),
            ("github.com:443:ech", 443, Check::TlsEch),
            ("10.1.2.0/24:5432", 5432, Check::Tcp),
        ] {
            let rule = rule(word);
            assert!(rule.has_port(port) && !rule.has_port(53), "{word}");
            assert_eq!(rule.check(port), check, "{word}");
        }
        assert!(!rule("github.com:80,443").has_port(81));
    }

    #[test]
    fn a_suffix_has_whole_labels_only() {
        let rule = rule("*.Crates.IO:443");
        for (name, is_named) in [
            ("static.crates.io", true),
            ("a.b.crates.io", true),
            ("crates.io", false),
            ("evilcrates.io", false),
            (".crates.io", false),
            ("crates.io.evil.example", false),
        ] {
            assert_eq!(rule.names(name).is_some(), is_named, "{name}");
        }
    }

    #[test]
    fn rules_that_cannot_be_meant() {
        for word in [
            "",
            "github.com",
            "github.com:",
            "github.com:0",
            "github.com:65536",
            "github.com:443:",
            "*:443",
            "*.:443",
            "*a.b:443",
            "a.*.b:443",
            "github.com:443:tls:tcp",
            "github.com:80-90",
            "github.com:53",
            "a.b:443,53",
            "127.0.0.1:80",
            "127.1.0.0/16:80",
            "[::1]:80",
            "198.18.0.7:80",
            "10.1.2.3/24:80",
            "2001:db8::1:443",
            "[2001:db8::1]",
            "0x7f.1:80",
            "10.0.0.1:443:tls",
            "[::ffff:10.0.0.1]:80",
            "a b:443",
            "http://a:80",
            "a:+80",
        ] {
            assert!(word.parse::<Rule>().is_err(), "{word}");
        }
        assert!(Rule::private("10.0.0.0/8:80").is_err());
        assert!(Rule::private("db.internal:5432").unwrap().private);
    }
}
