//! The expressions of rules.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::constants::*;
use crate::linux::message::Message;

/// An address of a packet.
#[derive(Clone, Copy)]
pub enum Field {
    /// The source address.
    Source,
    /// The destination address.
    Destination,
}

/// The expressions of a rule, one after the other.
pub struct Rule(pub Message);

impl Rule {
    fn expression(self, name: &str, fill: impl FnOnce(Message) -> Message) -> Self {
        Self(self.0.nest(LIST_ELEM, |m| m.string(1, name).nest(2, fill)))
    }

    fn meta(self, key: u32, register: u32) -> Self {
        self.expression("meta", |m| m.big(1, register).big(2, key))
    }

    fn compare(self, is: bool, value: &[u8]) -> Self {
        let operation = u32::from(!is);
        let data = |m: Message| m.bytes(DATA_VALUE, value);
        self.expression("cmp", |m| m.big(1, REGISTER).big(2, operation).nest(3, data))
    }

    fn name(self, key: u32, is: bool, name: &str) -> Self {
        let mut padded = name.as_bytes().to_vec();
        padded.resize(16, 0);
        // The number of a register of 16 bytes.
        self.meta(key, REGISTER).compare(is, &padded)
    }

    /// `iifname NAME`, or `iifname != NAME`
    pub fn input(self, is: bool, name: &str) -> Self {
        self.name(6, is, name)
    }

    /// `oifname NAME`, or `oifname != NAME`
    pub fn output(self, is: bool, name: &str) -> Self {
        self.name(7, is, name)
    }

    /// `meta nfproto ipv4`, or ipv6
    pub fn family(self, v4: bool) -> Self {
        self.meta(15, REGISTER).compare(true, &[if v4 { NFPROTO_IPV4 } else { NFPROTO_IPV6 }])
    }

    fn payload(self, base: u32, offset: u32, length: u32, register: u32) -> Self {
        self.expression("payload", |m| {
            m.big(1, register).big(2, base).big(3, offset).big(4, length)
        })
    }

    fn load_address(self, v4: bool, field: Field, register: u32) -> Self {
        const NETWORK_HEADER: u32 = 1;
        let (offset, length) = match (v4, field) {
            (true, Field::Source) => (12, 4),
            (true, Field::Destination) => (16, 4),
            (false, Field::Source) => (8, 16),
            (false, Field::Destination) => (24, 16),
        };
        self.payload(NETWORK_HEADER, offset, length, register)
    }

    fn masked(self, mask: &[u8]) -> Self {
        let zero = vec![0; mask.len()];
        self.expression("bitwise", |m| {
            m.big(1, REGISTER)
                .big(2, REGISTER)
                .big(3, mask.len() as u32)
                .nest(4, |m| m.bytes(DATA_VALUE, mask))
                .nest(5, |m| m.bytes(DATA_VALUE, &zero))
        })
    }

    /// `ip saddr NETWORK`, `ip6 daddr NETWORK`, ...
    pub fn address(self, field: Field, network: IpNetwork) -> Self {
        self.family(network.is_ipv4()).within(true, field, network)
    }

    /// [`address`](Self::address), or with `!=`, of a packet whose family an expression before this one
    /// compares.
    pub fn within(self, is: bool, field: Field, network: IpNetwork) -> Self {
        let rule = self.load_address(network.is_ipv4(), field, REGISTER);
        rule.masked(&octets(network.mask())).compare(is, &octets(network.network()))
    }

    /// `ip6 daddr != ::1`
    pub fn not_to_loopback(self) -> Self {
        let rule = self.load_address(false, Field::Destination, REGISTER);
        rule.compare(false, &std::net::Ipv6Addr::LOCALHOST.octets())
    }

    /// `fib daddr type local`
    pub fn for_this_host(self) -> Self {
        const ADDRTYPE: u32 = 3;
        const BY_DESTINATION: u32 = 2;
        const LOCAL: u32 = 2;
        self.expression("fib", |m| m.big(1, REGISTER).big(2, ADDRTYPE).big(3, BY_DESTINATION))
            .compare(true, &LOCAL.to_ne_bytes())
    }

    fn ct(self, key: u32, bits: u32, any: bool) -> Self {
        self.expression("ct", |m| m.big(1, REGISTER).big(2, key))
            .masked(&bits.to_ne_bytes())
            .compare(!any, &[0; 4])
    }

    /// `ct status dnat`, or `ct status & dnat == 0`
    pub fn redirected(self, is: bool) -> Self {
        const STATUS: u32 = 2;
        const DST_NAT: u32 = 1 << 5;
        self.ct(STATUS, DST_NAT, is)
    }

    /// `ct state & (established | related) == 0`
    pub fn new_connection(self) -> Self {
        const STATE: u32 = 0;
        const ESTABLISHED_RELATED: u32 = 6;
        self.ct(STATE, ESTABLISHED_RELATED, false)
    }

    fn verdict(self, verdict: u32) -> Self {
        const VERDICT_REGISTER: u32 = 0;
        let verdict = |m: Message| m.nest(DATA_VERDICT, |m| m.big(1, verdict));
        self.expression("immediate", |m| m.big(1, VERDICT_REGISTER).nest(2, verdict))
    }

    /// The verdict `drop`: the kernel drops the packet.
    pub fn drop(self) -> Self {
        const NF_DROP: u32 = 0;
        self.verdict(NF_DROP)
    }

    /// `accept`: no later rule of the chain is compared.
    pub fn accept(self) -> Self {
        const NF_ACCEPT: u32 = 1;
        self.verdict(NF_ACCEPT)
    }

    /// `reject with icmpx port-unreachable`: the sender gets the error at once.
    pub fn reject(self) -> Self {
        const ICMPX_UNREACH: u32 = 2;
        const ICMPX_PORT_UNREACH: u8 = 1;
        self.expression("reject", |m| m.big(1, ICMPX_UNREACH).bytes(2, &[ICMPX_PORT_UNREACH]))
    }

    /// `log group GROUP snaplen LENGTH queue-threshold 1`: the kernel copies the packet's first bytes to the socket of the
    /// group (nfnetlink_log).
    pub fn log(self, group: u16, length: u32) -> Self {
        let threshold = 1u16.to_be_bytes();
        self.expression("log", |m| {
            m.bytes(1, &group.to_be_bytes()).big(3, length).bytes(4, &threshold)
        })
    }

    /// `meta l4proto PROTOCOL`, by its number in an IP header.
    pub fn protocol(self, protocol: u8) -> Self {
        self.meta(L4PROTO, REGISTER).compare(true, &[protocol])
    }

    /// `th dport PORT`, of a protocol that an expression before this one compares.
    pub fn with_port(self, port: u16) -> Self {
        self.payload(TRANSPORT_HEADER, 2, 2, REGISTER).compare(true, &port.to_be_bytes())
    }

    /// `redirect to :PORT`: packets that this host sends go to its loopback address.
    pub fn redirect_to(self, port: u16) -> Self {
        let value = |m: Message| m.bytes(DATA_VALUE, &port.to_be_bytes());
        self.expression("immediate", |m| m.big(1, REGISTER).nest(2, value))
            .expression("redir", |m| m.big(1, REGISTER))
    }

    /// The verdict `masquerade`: the source becomes the host's address.
    pub fn masquerade(self) -> Self {
        self.expression("masq", |m| m)
    }

    /// `dnat ip to meta l4proto . th dport map @MAP`, with `ip daddr` as the key's first field if
    /// `by_address`; or the same for ip6.
    pub fn redirect(self, v4: bool, by_address: bool, map: &str) -> Self {
        const DNAT: u32 = 1;
        let words = if v4 { 1 } else { 4 };
        let (rule, next) = if by_address {
            (self.load_address(v4, Field::Destination, REGISTER), REGISTER + words)
        } else {
            (self, REGISTER)
        };
        let family = if v4 { NFPROTO_IPV4 } else { NFPROTO_IPV6 };
        rule.meta(L4PROTO, next)
            .payload(TRANSPORT_HEADER, 2, 2, next + 1)
            .expression("lookup", |m| m.string(1, map).big(2, REGISTER).big(3, FOUND))
            .expression("nat", |m| {
                let m = m.big(1, DNAT).big(2, family.into());
                m.big(3, FOUND).big(5, FOUND + words)
            })
    }
}

/// The bytes of an IPv4 or IPv6 address.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
