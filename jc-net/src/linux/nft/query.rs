//! Lists of tables, chains and elements of maps.

use super::constants::*;
use crate::linux::message::Attributes;
use crate::linux::netlink::{NetlinkResult, Socket};

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
