//! Messages of nf_tables in one transaction (`linux/netfilter/nf_tables.h`). nft(8) would add milliseconds to a start, and
//! may not be installed.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use jc_unshare::{Error, Result};
use rustix::io::Errno;

use crate::linux::message::{ACK, Attributes, Message};
use crate::linux::netlink::{APPEND, CREATE, EXCL, NetlinkResult, Socket};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

const NEWTABLE: u16 = 0;
const GETTABLE: u16 = 1;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const GETCHAIN: u16 = 4;
const DELCHAIN: u16 = 5;
const NEWRULE: u16 = 6;
const DELRULE: u16 = 8;
const NEWSET: u16 = 9;
const NEWSETELEM: u16 = 12;
const GETSETELEM: u16 = 13;

const NFPROTO_UNSPEC: u8 = 0;
const NFPROTO_INET: u8 = 1;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;

/// NFTA_*_TABLE and NFTA_*_NAME or _CHAIN are the same for most objects.
const TABLE: u16 = 1;
const LIST_ELEM: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const TABLE_F_OWNER: u32 = 2;
const TABLE_USERDATA: u16 = 6;
/// The mark of tables and chains that jc-net makes: nft(8) shows `comment "jc-net"`. Type, length, text.
const MARK: &[u8] = b"\0\x07jc-net\0";
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const CHAIN_USERDATA: u16 = 12;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const SET_NAME: u16 = 2;
const SET_ELEMENTS: u16 = 3;
const ELEM_KEY: u16 = 1;
const ELEM_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;

/// NFT_META_L4PROTO and NFT_PAYLOAD_TRANSPORT_HEADER
const L4PROTO: u32 = 16;
const TRANSPORT_HEADER: u32 = 2;

/// The first of the 4-byte registers, and a register behind the longest key.
const REGISTER: u32 = 8;
const FOUND: u32 = 16;

/// The hook of a chain, with type and priority.
#[derive(Clone, Copy, Debug)]
pub enum Hook {
    /// A filter of received packets, before connection tracking and routing.
    Raw,
    /// Translation of the destination of received packets.
    Prerouting,
    /// A filter of forwarded packets.
    Forward,
    /// Translation of the destination of packets that this host sends.
    Output,
    /// Translation of the source of packets that leave the host.
    Postrouting,
    /// A filter of packets that this host sends.
    Sent,
}

impl Hook {
    /// Type, number (`NF_INET_*`) and priority.
    fn type_number_priority(self) -> (&'static str, u32, i32) {
        match self {
            Self::Raw => ("filter", 0, -300),
            Self::Prerouting => ("nat", 0, -100),
            Self::Forward => ("filter", 2, 0),
            Self::Output => ("nat", 3, -100),
            Self::Postrouting => ("nat", 4, 100),
            Self::Sent => ("filter", 3, 0),
        }
    }
}

fn message(kind: u16, flags: u16, family: u8) -> Message {
    Message::new(SUBSYSTEM << 8 | kind, flags, &[family, 0, 0, 0])
}

/// A transaction: the kernel makes all changes or none.
pub struct Batch(Vec<Message>);

impl Batch {
    /// Begins an empty transaction.
    pub fn new() -> Self {
        Self(vec![Message::new(BATCH_BEGIN, 0, &[NFPROTO_UNSPEC, 0, 0, SUBSYSTEM as u8])])
    }

    /// Adds a table, which may exist.
    pub fn table(&mut self, name: &str) {
        let new = message(NEWTABLE, CREATE, NFPROTO_INET).string(TABLE, name);
        self.0.push(new.bytes(TABLE_USERDATA, MARK));
    }

    /// Adds a table that ends with the socket of the transaction (NFT_TABLE_F_OWNER).
    pub fn own_table(&mut self, name: &str) {
        let new = message(NEWTABLE, CREATE | EXCL, NFPROTO_INET).string(TABLE, name);
        self.0.push(new.big(TABLE_FLAGS, TABLE_F_OWNER));
    }

    /// Deletes a table with its chains, rules and maps.
    pub fn delete_table(&mut self, name: &str) {
        self.0.push(message(DELTABLE, 0, NFPROTO_INET).string(TABLE, name));
    }

    /// Adds a chain at a hook. An existing chain loses its rules.
    pub fn chain(&mut self, table: &str, name: &str, hook: Hook) {
        let (kind, number, priority) = hook.type_number_priority();
        let hooked = |m: Message| m.big(HOOK_NUMBER, number).big(HOOK_PRIORITY, priority as u32);
        let new = message(NEWCHAIN, CREATE, NFPROTO_INET).string(TABLE, table);
        let new = new.string(CHAIN_NAME, name).nest(CHAIN_HOOK, hooked).string(CHAIN_TYPE, kind);
        self.0.push(new.bytes(CHAIN_USERDATA, MARK));
        self.flush(table, name);
    }

    fn flush(&mut self, table: &str, chain: &str) {
        let flush = message(DELRULE, 0, NFPROTO_INET).string(TABLE, table);
        self.0.push(flush.string(RULE_CHAIN, chain));
    }

    /// Deletes a chain with its rules.
    pub fn delete_chain(&mut self, table: &str, name: &str) {
        self.flush(table, name);
        let delete = message(DELCHAIN, 0, NFPROTO_INET).string(TABLE, table);
        self.0.push(delete.string(CHAIN_NAME, name));
    }

    /// Adds a rule at the end of a chain.
    pub fn rule(&mut self, table: &str, chain: &str, fill: impl FnOnce(Rule) -> Rule) {
        let new = message(NEWRULE, CREATE | APPEND, NFPROTO_INET).string(TABLE, table);
        let new = new.string(RULE_CHAIN, chain);
        self.0.push(new.nest(RULE_EXPRESSIONS, |m| fill(Rule(m)).0));
    }

    /// Adds a map with its elements.
    pub fn map(&mut self, table: &str, map: &Map) {
        const FLAG_MAP: u32 = 8;
        let id = self.0.len() as u32;
        let new = message(NEWSET, CREATE, NFPROTO_INET).string(TABLE, table);
        let new = new.string(SET_NAME, &map.name).big(3, FLAG_MAP).big(10, id);
        // Only nft(8) uses the types, to list the map.
        let key = new.big(4, map.key_type).big(5, map.key_length);
        self.0.push(key.big(6, map.data_type).big(7, map.data_length));
        // An attribute has at most 64 KiB.
        for some in map.elements.chunks(500) {
            let element = |m: Message, (key, data): &(Vec<u8>, Vec<u8>)| {
                m.nest(LIST_ELEM, |m| {
                    m.nest(ELEM_KEY, |m| m.bytes(DATA_VALUE, key))
                        .nest(ELEM_DATA, |m| m.bytes(DATA_VALUE, data))
                })
            };
            let add = message(NEWSETELEM, CREATE, NFPROTO_INET).string(TABLE, table);
            let add = add.string(SET_NAME, &map.name).big(4, id);
            self.0.push(add.nest(SET_ELEMENTS, |m| some.iter().fold(m, element)));
        }
    }

    /// Sends the transaction and waits for the acknowledgement.
    pub fn commit(mut self, socket: &Socket) -> NetlinkResult<()> {
        if let Some(last) = self.0.last_mut() {
            last.add_flags(ACK);
        }
        self.0.push(Message::new(BATCH_END, 0, &[NFPROTO_UNSPEC, 0, 0, SUBSYSTEM as u8]));
        socket.send_batch(self.0)
    }
}

/// A map whose keys and values consist of fields. Each field is padded to four bytes.
#[derive(Debug)]
pub struct Map {
    /// The name of the map.
    pub name: String,
    /// The types of the key's fields, as nft(8) numbers them, six bits each.
    pub key_type: u32,
    /// The length of a key in bytes.
    pub key_length: u32,
    /// The types of the value's fields.
    pub data_type: u32,
    /// The length of a value in bytes.
    pub data_length: u32,
    /// The pairs of key and value.
    pub elements: Vec<(Vec<u8>, Vec<u8>)>,
}

/// An address of a packet.
#[derive(Clone, Copy)]
pub enum Field {
    /// The source address.
    Source,
    /// The destination address.
    Destination,
}

/// The expressions of a rule, one after the other.
pub struct Rule(Message);

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
        let (rule, next) = match by_address {
            true => (self.load_address(v4, Field::Destination, REGISTER), REGISTER + words),
            false => (self, REGISTER),
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

/// Whether a table exists.
pub fn has_table(socket: &Socket, name: &str) -> NetlinkResult<bool> {
    let question = message(GETTABLE, 0, NFPROTO_INET).string(TABLE, name);
    Ok(socket.get(question, |_| Some(()))?.is_some())
}

/// Whether a table exists and has the mark of jc-net.
pub fn is_marked(socket: &Socket, table: &str) -> NetlinkResult<bool> {
    let question = message(GETTABLE, 0, NFPROTO_INET).string(TABLE, table);
    let marked = |body: &[u8]| Some(Attributes(body.get(4..)?).get(TABLE_USERDATA) == Some(MARK));
    Ok(socket.get(question, marked)?.unwrap_or(false))
}

/// Whether a chain exists and has the mark of jc-net.
pub fn has_chain(socket: &Socket, table: &str, name: &str) -> NetlinkResult<bool> {
    let question = message(GETCHAIN, 0, NFPROTO_INET).string(TABLE, table);
    let marked = |body: &[u8]| Some(Attributes(body.get(4..)?).get(CHAIN_USERDATA) == Some(MARK));
    Ok(socket.get(question.string(CHAIN_NAME, name), marked)?.unwrap_or(false))
}

/// A chain in the kernel's list.
#[derive(Debug)]
pub struct Chain {
    /// The address family of the table, an NFPROTO_* constant.
    pub family: u8,
    /// The name of the table.
    pub table: String,
    /// The name of the chain.
    pub name: String,
    /// The number of the hook. A regular chain, which is a target of jumps, has none.
    pub hook: Option<u32>,
    /// Whether the policy of the chain is `drop`.
    pub drops: bool,
    /// Whether jc-net has made the chain.
    pub is_marked: bool,
}

impl Chain {
    /// Whether the chain is in a table of the family `inet`.
    pub fn is_in(&self, table: &str) -> bool {
        self.family == NFPROTO_INET && self.table == table
    }
}

/// All chains of all tables.
pub fn chains(socket: &Socket) -> NetlinkResult<Vec<Chain>> {
    socket.dump(|| message(GETCHAIN, 0, NFPROTO_UNSPEC), read_chain)
}

/// Reads an answer to `NFT_MSG_GETCHAIN`.
pub fn read_chain(body: &[u8]) -> Option<Chain> {
    let all = Attributes(body.get(4..)?);
    Some(Chain {
        family: *body.first()?,
        table: all.string(TABLE)?,
        name: all.string(CHAIN_NAME)?,
        hook: all.get(CHAIN_HOOK).and_then(|hook| Attributes(hook).big(HOOK_NUMBER)),
        drops: all.big(CHAIN_POLICY) == Some(0),
        is_marked: all.get(CHAIN_USERDATA) == Some(MARK),
    })
}

/// An element of a map: key and value.
pub type Element = (Vec<u8>, Vec<u8>);

/// The elements of a map. A map that does not exist has none.
pub fn elements(socket: &Socket, table: &str, map: &str) -> NetlinkResult<Vec<Element>> {
    let question =
        || message(GETSETELEM, 0, NFPROTO_INET).string(TABLE, table).string(SET_NAME, map);
    let lists = socket.dump(question, read_elements)?;
    Ok(lists.into_iter().flatten().collect())
}

/// Reads an answer to `NFT_MSG_GETSETELEM`.
pub fn read_elements(body: &[u8]) -> Option<Vec<Element>> {
    let list = Attributes(body.get(4..)?).nested(SET_ELEMENTS);
    let elements = list.all().filter_map(|(_, element)| {
        let element = Attributes(element);
        let value = |kind| Some(element.nested(kind).get(DATA_VALUE)?.to_vec());
        Some((value(ELEM_KEY)?, value(ELEM_DATA)?))
    });
    Some(elements.collect())
}

/// The error of an operation, with a hint where the kernel may lack a module.
pub fn explain<T>(answer: NetlinkResult<T>, doing: &str) -> Result<T> {
    answer.map_err(|error| {
        let errno = error.errno;
        let lacks = matches!(errno, Errno::PROTONOSUPPORT | Errno::OPNOTSUPP | Errno::INVAL)
            || errno == Errno::NOENT;
        let error: Error = error.during(doing);
        if !lacks {
            return error;
        }
        error
            .hint("the kernel may lack nf_tables or a part of it: nft_chain_nat, nft_masq, nft_fib")
    })
}
