//! Numbers of nf_tables (`linux/netfilter/nf_tables.h`), and the header of its messages.

use crate::linux::message::Message;

pub const SUBSYSTEM: u16 = 10;
pub const BATCH_BEGIN: u16 = 0x10;
pub const BATCH_END: u16 = 0x11;

pub const NEWTABLE: u16 = 0;
pub const GETTABLE: u16 = 1;
pub const DELTABLE: u16 = 2;
pub const NEWCHAIN: u16 = 3;
pub const GETCHAIN: u16 = 4;
pub const DELCHAIN: u16 = 5;
pub const NEWRULE: u16 = 6;
pub const DELRULE: u16 = 8;
pub const NEWSET: u16 = 9;
pub const NEWSETELEM: u16 = 12;
pub const GETSETELEM: u16 = 13;

pub const NFPROTO_UNSPEC: u8 = 0;
pub const NFPROTO_INET: u8 = 1;
pub const NFPROTO_IPV4: u8 = 2;
pub const NFPROTO_IPV6: u8 = 10;

/// NFTA_*_TABLE and NFTA_*_NAME or _CHAIN are the same for most objects.
pub const TABLE: u16 = 1;
pub const LIST_ELEM: u16 = 1;
pub const TABLE_FLAGS: u16 = 2;
pub const TABLE_F_OWNER: u32 = 2;
pub const TABLE_USERDATA: u16 = 6;
/// The mark of tables and chains that jc-net makes: nft(8) shows `comment "jc-net"`. Type, length, text.
pub const MARK: &[u8] = b"\0\x07jc-net\0";
pub const RULE_CHAIN: u16 = 2;
pub const RULE_EXPRESSIONS: u16 = 4;
pub const CHAIN_NAME: u16 = 3;
pub const CHAIN_HOOK: u16 = 4;
pub const CHAIN_POLICY: u16 = 5;
pub const CHAIN_TYPE: u16 = 7;
pub const CHAIN_USERDATA: u16 = 12;
pub const HOOK_NUMBER: u16 = 1;
pub const HOOK_PRIORITY: u16 = 2;
pub const SET_NAME: u16 = 2;
pub const SET_ELEMENTS: u16 = 3;
pub const ELEM_KEY: u16 = 1;
pub const ELEM_DATA: u16 = 2;
pub const DATA_VALUE: u16 = 1;
pub const DATA_VERDICT: u16 = 2;

/// The key `meta l4proto` (NFT_META_L4PROTO).
pub const L4PROTO: u32 = 16;
/// The base of an offset in the transport header (NFT_PAYLOAD_TRANSPORT_HEADER).
pub const TRANSPORT_HEADER: u32 = 2;

/// The first of the 4-byte registers, and a register behind the longest key.
pub const REGISTER: u32 = 8;
pub const FOUND: u32 = 16;

/// A message with the header of nfnetlink.
pub fn message(kind: u16, flags: u16, family: u8) -> Message {
    Message::new(SUBSYSTEM << 8 | kind, flags, &[family, 0, 0, 0])
}
