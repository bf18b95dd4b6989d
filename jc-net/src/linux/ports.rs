//! Published ports: the values of options, and the sockets that keep the ports of the host bound.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::str::FromStr;

use jc_unshare::{Context, Error, Result};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Shutdown, SocketFlags, SocketType, bind, getsockname, ipproto, listen, shutdown,
    socket_with, sockopt,
};

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Protocol {
    /// tcp(7)
    Tcp,
    /// udp(7)
    Udp,
    /// sctp(7)
    Sctp,
}

impl Protocol {
    const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// The name in option values and events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// The number in an IP header (protocols(5)).
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The protocol with a number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.number() == number)
    }
}

/// A range of ports.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Range {
    first: u16,
    last: u16,
}

impl Range {
    fn parse(word: &str) -> Result<Self, String> {
        let number = |word: &str| match word.parse() {
            Ok(port) if port > 0 && word.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
            _ => Err(format!("{word:?} is not a port")),
        };
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let range = Self { first: number(first)?, last: number(last)? };
        if range.first <= range.last {
            Ok(range)
        } else {
            Err(format!("{word:?} ends before it begins"))
        }
    }

    fn count(self) -> u16 {
        self.last - self.first
    }
}

/// A value of `--publish`: `[IP:]HOST:CONT[/PROTO]`, or `[IP::]CONT[/PROTO]` for any free port of the host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Publish {
    address: Option<IpAddr>,
    host: Option<Range>,
    container: Range,
    protocol: Protocol,
}

const BROADCAST: IpAddr = IpAddr::V4(Ipv4Addr::BROADCAST);

fn protocol(word: &str) -> Result<(&str, Protocol), String> {
    let Some((ports, name)) = word.rsplit_once('/') else { return Ok((word, Protocol::Tcp)) };
    let found = Protocol::ALL.into_iter().find(|protocol| protocol.name() == name);
    Ok((ports, found.ok_or_else(|| format!("{name:?} is none of tcp, udp, sctp"))?))
}

impl FromStr for Publish {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let (rest, protocol) = protocol(word)?;
        let (rest, container) = match rest.rsplit_once(':') {
            Some((rest, container)) => (Some(rest), Range::parse(container)?),
            None => (None, Range::parse(rest)?),
        };
        let (address, host) = match rest.map(|rest| rest.rsplit_once(':').unwrap_or(("", rest))) {
            None => (None, None),
            Some((address, host)) => {
                let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']'));
                let is_v6 = bare.is_some();
                let parsed: Option<IpAddr> = bare.unwrap_or(address).parse().ok();
                let parsed = parsed.filter(|parsed| parsed.is_ipv6() == is_v6);
                if parsed.is_none() && !address.is_empty() {
                    return Err(format!("{address:?} is not an address (IPv6 goes in brackets)"));
                }
                if parsed.is_some_and(|parsed| parsed.is_multicast() || parsed == BROADCAST) {
                    return Err(format!("{address} is a multicast or broadcast address"));
                }
                (parsed, if host.is_empty() { None } else { Some(Range::parse(host)?) })
            }
        };
        if host.is_some_and(|host| host.count() != container.count()) {
            return Err("the two ranges are not of the same length".to_owned());
        }
        Ok(Self { address, host, container, protocol })
    }
}

/// A value of `--expose`, `PORT[/PROTO]`: a port that `-P` publishes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Expose(Publish);

impl FromStr for Expose {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let (ports, protocol) = protocol(word)?;
        let container = Range::parse(ports)?;
        Ok(Self(Publish { address: None, host: None, container, protocol }))
    }
}

impl Expose {
    /// The publication of the port at any free port of the host.
    pub fn publish(&self) -> Publish {
        self.0.clone()
    }
}

/// A port of an address of the host, with its target in the container.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Forward {
    /// The transport protocol of the port.
    pub protocol: Protocol,
    /// The port on the host.
    pub host_port: u16,
    /// The address of the host. An unspecified address stands for all of its family.
    pub host: IpAddr,
    /// The address of the container.
    pub to: IpAddr,
    /// The port in the container.
    pub port: u16,
}

/// Ports of the host that this process keeps bound.
pub struct BoundPorts {
    /// The targets of the ports.
    pub forwards: Vec<Forward>,
    /// The sockets that are bound to the ports.
    pub sockets: Vec<OwnedFd>,
}

/// Binds ports in this network namespace, which is the host's, for a container with an IPv4 address and, if `has_v6`, an
/// IPv6 address. A port in use is an error.
pub fn bind_all(publications: &[Publish], has_v6: bool) -> Result<BoundPorts> {
    let mut bound = BoundPorts { forwards: Vec::new(), sockets: Vec::new() };
    let v6 = has_v6.then_some(IpAddr::from(Ipv6Addr::UNSPECIFIED));
    let addresses: Vec<IpAddr> = [Ipv4Addr::UNSPECIFIED.into()].into_iter().chain(v6).collect();
    for publish in publications {
        let targets = publish.targets(&addresses)?;
        for offset in 0..=publish.container.count() {
            let port = publish.container.first + offset;
            let host_port = publish.host.map(|host| host.first + offset);
            bound.bind(publish.protocol, &targets, host_port, port)?;
        }
    }
    Ok(bound)
}

impl Publish {
    /// Whether the address of the host is ::1.
    pub fn is_at_v6_loopback(&self) -> bool {
        self.address == Some(Ipv6Addr::LOCALHOST.into())
    }

    /// The addresses of the host. `any` has an unspecified address for each family of the container.
    fn targets(&self, any: &[IpAddr]) -> Result<Vec<IpAddr>> {
        let Some(host) = self.address else { return Ok(any.to_vec()) };
        if any.iter().any(|any| any.is_ipv4() == host.is_ipv4()) {
            Ok(vec![host])
        } else {
            Err(Error::new(format_args!(
                "publish at {host}: the container has no address of that family"
            )))
        }
    }
}

impl BoundPorts {
    /// Whether one of the ports is for UDP.
    pub fn has_udp(&self) -> bool {
        self.forwards.iter().any(|forward| forward.protocol == Protocol::Udp)
    }

    /// Sets the targets of the ports to the addresses of the container, by family.
    pub fn set_targets(&mut self, addresses: &[IpAddr]) {
        for forward in &mut self.forwards {
            let same = addresses.iter().find(|to| to.is_ipv4() == forward.host.is_ipv4());
            forward.to = same.copied().unwrap_or(forward.to);
        }
    }

    fn bind(
        &mut self,
        protocol: Protocol,
        targets: &[IpAddr],
        host_port: Option<u16>,
        port: u16,
    ) -> Result<()> {
        // A port that is free for one family may be in use for the other.
        const TRIES: usize = 50;
        for attempt in 1.. {
            let mut chosen = host_port;
            let mut sockets = Vec::new();
            let mut outcome = Ok(());
            for host in targets {
                match bind_port(protocol, *host, chosen.unwrap_or(0)) {
                    Ok((socket, number)) => {
                        chosen = Some(number);
                        sockets.extend(socket);
                    }
                    Err(error) => {
                        outcome = Err(error);
                        break;
                    }
                }
            }
            let (Ok(()), Some(host_port)) = (&outcome, chosen) else {
                if host_port.is_some() || attempt == TRIES {
                    return outcome;
                }
                continue;
            };
            self.sockets.append(&mut sockets);
            self.forwards.extend(targets.iter().map(|host| Forward {
                protocol,
                host_port,
                host: *host,
                to: *host,
                port,
            }));
            break;
        }
        Ok(())
    }
}

/// Binds a socket, which does not listen, to a port. 0 stands for any free port. Returns the socket and the port. `None`:
/// the kernel lacks SCTP, so no other program can use the port.
fn bind_port(protocol: Protocol, host: IpAddr, port: u16) -> Result<(Option<OwnedFd>, u16)> {
    let family = if host.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let (kind, number) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    let address = SocketAddr::new(host, port);
    let name = format!("publish {address}/{}", protocol.name());
    let socket = match socket_with(family, kind, SocketFlags::CLOEXEC, Some(number)) {
        Err(Errno::PROTONOSUPPORT | Errno::SOCKTNOSUPPORT) if protocol == Protocol::Sctp => {
            return match port {
                0 => Err(Error::new(format_args!(
                    "{name}: only with a port given, as the kernel lacks SCTP"
                ))),
                _ => Ok((None, port)),
            };
        }
        other => other.op(&name)?,
    };
    if host.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true).op(&name)?;
    }
    // Connections in TIME_WAIT do not prevent the bind, but a later server must not share the port.
    let is_tcp = protocol == Protocol::Tcp;
    sockopt::set_socket_reuseaddr(&socket, is_tcp).op(&name)?;
    let mut taken = bind(&socket, &address);
    // Older kernels (6.1) compare the value of SO_REUSEADDR at the bind(2), until a socket listens. A socket that
    // continued to listen would accept connections that no rule translates, and never answer them.
    if taken.is_ok() && is_tcp && port != 0 {
        taken = listen(&socket, 1).and_then(|()| shutdown(&socket, Shutdown::Read));
    }
    match taken {
        Err(Errno::ADDRINUSE) => {
            return Err(Error::new(format_args!("{name}: the port is in use")));
        }
        Err(Errno::ACCESS) if port < 1024 => {
            let least = format_args!(
                "sysctl -w net.ipv4.ip_unprivileged_port_start={port}, as root, allows it"
            )
            .to_string();
            return Err(Errno::ACCESS).op(&name).map_err(|e: Error| e.hint(least));
        }
        other => other.op(&name)?,
    }
    sockopt::set_socket_reuseaddr(&socket, false).op(&name)?;
    let own = SocketAddr::try_from(getsockname(&socket).op(&name)?).op(&name)?;
    Ok((Some(socket), own.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(
        address: Option<&str>,
        host: Option<(u16, u16)>,
        container: (u16, u16),
        protocol: Protocol,
    ) -> Publish {
        let range = |(first, last)| Range { first, last };
        let address = address.map(|address| address.parse().unwrap());
        Publish { address, host: host.map(range), container: range(container), protocol }
    }

    #[test]
    fn ways_to_say_which_port() {
        use Protocol::{Sctp, Tcp, Udp};
        for (word, expected) in [
            ("8080:80", publish(None, Some((8080, 8080)), (80, 80), Tcp)),
            ("80", publish(None, None, (80, 80), Tcp)),
            ("53:53/udp", publish(None, Some((53, 53)), (53, 53), Udp)),
            ("1-3:5-7/sctp", publish(None, Some((1, 3)), (5, 7), Sctp)),
            ("127.0.0.1:8080:80", publish(Some("127.0.0.1"), Some((8080, 8080)), (80, 80), Tcp)),
            ("127.0.0.1::80", publish(Some("127.0.0.1"), None, (80, 80), Tcp)),
            ("[::1]:8080:80", publish(Some("::1"), Some((8080, 8080)), (80, 80), Tcp)),
            ("[fd00::1]::80/udp", publish(Some("fd00::1"), None, (80, 80), Udp)),
        ] {
            assert_eq!(word.parse(), Ok(expected), "{word}");
        }
        for wrong in [
            "",
            ":",
            "80:",
            "0:80",
            "80:0",
            "65536:80",
            "80:65536",
            "a:80",
            "80/icmp",
            "1-2:3",
            "3-1:3-1",
            "::1:80:80",
            "[::1:80:80",
            "[127.0.0.1]:80:80",
            "localhost:80:80",
            "+80:80",
            "80:80/TCP",
            "1.2.3:80:80",
            "80-:80",
            "224.0.0.1:80:80",
            "255.255.255.255::80",
            "[ff02::1]:80:80",
            "-80",
        ] {
            assert!(wrong.parse::<Publish>().is_err(), "{wrong}");
        }
        assert_eq!("80/udp".parse(), Ok(Expose(publish(None, None, (80, 80), Udp))));
        assert!("8080:80".parse::<Expose>().is_err());
    }
}
