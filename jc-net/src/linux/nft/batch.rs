//! Changes of tables, chains, rules and maps in one transaction.

use super::constants::*;
use super::rule::Rule;
use crate::linux::message::{ACK, Message};
use crate::linux::netlink::{APPEND, CREATE, EXCL, NetlinkResult, Socket};

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
