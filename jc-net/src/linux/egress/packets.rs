//! Packets that the table rejects, as the kernel copies them to a socket (nfnetlink_log, `linux/netfilter/nfnetlink_log.h`).

use std::borrow::Cow;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use jc_unshare::{Context, Result};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::linux::message::{Attributes, Message, address};
use crate::linux::netlink::{Socket, parts};
use crate::linux::nft::explain;
use crate::linux::sys;

/// The group of the rule and the socket. The network namespace has no other.
pub const GROUP: u16 = 1;
/// The bytes of a packet that are copied: an IPv6 header, and the ports behind it.
pub const LENGTH: u32 = 44;

const SUBSYSTEM: u16 = 4;
const CONFIG: u16 = 1;

/// A packet that was rejected.
#[derive(Debug, Eq, PartialEq)]
pub struct Packet {
    /// The name of the protocol, or its number in an IP header.
    pub protocol: Cow<'static, str>,
    /// The address to which the packet was sent.
    pub address: IpAddr,
    /// The port of the destination, if the protocol has ports.
    pub port: Option<u16>,
}

/// A socket to which the kernel copies the packets of the group, each in a message of its own.
pub fn socket() -> Result<OwnedFd> {
    const COMMAND: u16 = 1;
    const MODE: u16 = 2;
    const BUFFER_SIZE: u16 = 3;
    const THRESHOLD: u16 = 5;
    const BIND: u8 = 1;
    const COPY_PACKET: u8 = 2;
    let socket = Socket::netfilter()?;
    let [high, low] = GROUP.to_be_bytes();
    let [a, b, c, d] = LENGTH.to_be_bytes();
    let bind = Message::new(SUBSYSTEM << 8 | CONFIG, 0, &[0, 0, high, low])
        .bytes(COMMAND, &[BIND])
        .bytes(MODE, &[a, b, c, d, COPY_PACKET, 0])
        .big(BUFFER_SIZE, 1)
        .big(THRESHOLD, 1);
    explain(socket.ask(bind), "log rejected packets")?;
    Ok(socket.into())
}

/// The next packet; `None` if there is none. Error: an answer of the kernel that is no packet.
pub fn next(socket: impl AsFd, buffer: &mut [u8]) -> std::result::Result<Option<Packet>, Errno> {
    match recv(socket, &mut *buffer, RecvFlags::DONTWAIT) {
        Ok((length, _)) => read(&buffer[..length]).ok_or(Errno::BADMSG).map(Some),
        Err(Errno::AGAIN) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The number of packets that had no room in the socket so far.
pub fn dropped(socket: impl AsFd) -> Result<u32> {
    sys::dropped(socket.as_fd()).op("SO_MEMINFO")
}

/// Reads the message of a packet.
pub fn read(datagram: &[u8]) -> Option<Packet> {
    const PACKET: u16 = 0;
    const PAYLOAD: u16 = 9;
    const FIXED: usize = 4;
    let (kind, _, body) = parts(datagram).next()?;
    let payload = Attributes(body.get(FIXED..)?).get(PAYLOAD)?;
    (kind == SUBSYSTEM << 8 | PACKET).then_some(())?;
    let (protocol, destination, header) = match payload.first()? >> 4 {
        4 => (*payload.get(9)?, 16..20, usize::from(payload[0] & 15) * 4),
        _ => (*payload.get(6)?, 24..40, 40),
    };
    let port = || Some(u16::from_be_bytes(payload.get(header + 2..header + 4)?.try_into().ok()?));
    let (name, has_ports) = match protocol {
        1 => ("icmp", false),
        6 => ("tcp", true),
        17 => ("udp", true),
        33 => ("dccp", true),
        58 => ("icmpv6", false),
        132 => ("sctp", true),
        136 => ("udplite", true),
        _ => ("", false),
    };
    Some(Packet {
        protocol: if name.is_empty() { protocol.to_string().into() } else { name.into() },
        address: address(payload.get(destination)?)?,
        port: port().filter(|_| has_ports),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: &[u8]) -> Vec<u8> {
        Message::new(SUBSYSTEM << 8, 0, &[2, 0, 0, 1]).bytes(9, payload).finish(0)
    }

    #[test]
    fn a_packet_has_protocol_destination_and_port() {
        let mut v4 = vec![0x45; 20];
        v4[9] = 17;
        v4[16..20].copy_from_slice(&[203, 0, 113, 66]);
        v4.extend([9, 9, 1, 187]);
        let packet = read(&message(&v4)).unwrap();
        assert_eq!((&*packet.protocol, packet.port), ("udp", Some(443)));
        assert_eq!(packet.address.to_string(), "203.0.113.66");
        v4[9] = 2;
        let packet = read(&message(&v4)).unwrap();
        assert_eq!((&*packet.protocol, packet.port), ("2", None));
        let mut v6 = vec![0; 40];
        (v6[0], v6[6], v6[39]) = (0x60, 58, 1);
        let packet = read(&message(&v6)).unwrap();
        assert_eq!((&*packet.protocol, packet.port), ("icmpv6", None));
        assert_eq!(packet.address.to_string(), "::1");
        v6[6] = 17;
        assert_eq!(read(&message(&v6)).unwrap().port, None, "cut short");
        for length in 0..20 {
            assert_eq!(read(&message(&v4[..length])), None);
        }
    }
}
