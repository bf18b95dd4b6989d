//! The composition and the parsing of netlink messages (netlink(7)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const REQUEST: u16 = 1;
/// The flag that requests an acknowledgement (NLM_F_ACK).
pub const ACK: u16 = 4;
/// The length of the header (struct nlmsghdr), in bytes.
pub const HEADER: usize = 16;
/// The bit in the type of an attribute that contains attributes (NLA_F_NESTED).
pub const NESTED: u16 = 0x8000;
/// The bits of an attribute's type that are not part of its number.
const TYPE_FLAGS: u16 = 0xc000;

/// A message under construction.
#[derive(Debug)]
pub struct Message(Vec<u8>);

impl Message {
    /// A request of this type, with the header of the type.
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend([0; 4]); // the sequence number, which `finish` sets
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((flags | REQUEST).to_ne_bytes());
        bytes.extend([0; 8]); // the port of the kernel
        bytes.extend(fixed);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        Self(bytes)
    }

    /// Adds flags to the header.
    pub fn add_flags(&mut self, flags: u16) {
        let now = u16::from_ne_bytes([self.0[6], self.0[7]]);
        self.0[6..8].copy_from_slice(&(now | flags).to_ne_bytes());
    }

    /// Whether the kernel acknowledges a success.
    pub fn is_acknowledged(&self) -> bool {
        u16::from_ne_bytes([self.0[6], self.0[7]]) & ACK != 0
    }

    /// Adds an attribute with these bytes as its value.
    #[must_use]
    pub fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend(((4 + value.len()) as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Adds an attribute with a text, which ends in a NUL byte.
    #[must_use]
    pub fn string(self, kind: u16, value: &str) -> Self {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// Adds an attribute with a number in host byte order, as in rtnetlink.
    #[must_use]
    pub fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Adds an attribute with a number in network byte order, as in nf_tables.
    #[must_use]
    pub fn big(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Adds an attribute with an address of either family.
    #[must_use]
    pub fn address(self, kind: u16, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.bytes(kind, &address.octets()),
            IpAddr::V6(address) => self.bytes(kind, &address.octets()),
        }
    }

    /// Adds an attribute with the attributes that `fill` adds.
    #[must_use]
    pub fn nest(self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        self.nest_with_header(kind | NESTED, &[], fill)
    }

    /// Adds an attribute with a header and the attributes that `fill` adds.
    #[must_use]
    pub fn nest_with_header(
        mut self,
        kind: u16,
        fixed: &[u8],
        fill: impl FnOnce(Self) -> Self,
    ) -> Self {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(fixed);
        let mut filled = fill(self);
        let length = (filled.0.len() - start) as u16;
        filled.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        filled
    }

    /// Calls `fill` if the value is present.
    #[must_use]
    pub fn maybe<T>(self, value: Option<T>, fill: impl FnOnce(Self, T) -> Self) -> Self {
        match value {
            Some(value) => fill(self, value),
            None => self,
        }
    }

    /// The bytes of the message, with this sequence number.
    pub fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[0..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        debug_assert!(self.0.len() >= HEADER);
        self.0
    }
}

/// The attributes of a received message.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Attributes<'a> {
    /// The number and the value of each attribute, in order. An incomplete attribute ends the list.
    pub fn all(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
            let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?);
            let value = rest.get(4..length)?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            Some((kind & !TYPE_FLAGS, value))
        })
    }

    /// The value of an attribute.
    pub fn get(self, kind: u16) -> Option<&'a [u8]> {
        self.all().find(|(k, _)| *k == kind).map(|(_, value)| value)
    }

    /// The attributes in an attribute.
    pub fn nested(self, kind: u16) -> Self {
        Self(self.get(kind).unwrap_or_default())
    }

    /// The number of an attribute in host byte order.
    pub fn number(self, kind: u16) -> Option<u32> {
        Some(u32::from_ne_bytes(self.get(kind)?.try_into().ok()?))
    }

    /// The number of an attribute in network byte order.
    pub fn big(self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }

    /// The text of an attribute, without the NUL byte at its end.
    pub fn string(self, kind: u16) -> Option<String> {
        text(self.get(kind)?)
    }

    /// The address of an attribute, of either family.
    pub fn address(self, kind: u16) -> Option<IpAddr> {
        address(self.get(kind)?)
    }
}

/// The text before the first NUL byte.
pub fn text(value: &[u8]) -> Option<String> {
    let text = value.split(|b| *b == 0).next()?;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// An address, whose family follows from the length.
pub fn address(value: &[u8]) -> Option<IpAddr> {
    let v4 = || Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into());
    let v6 = || Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into());
    v4().or_else(v6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_composed_message_is_parsed_back() {
        let bytes = Message::new(16, 0, &[0; 4])
            .string(3, "eth0")
            .nest(18, |m| m.number(1, 7).big(2, 7))
            .address(5, IpAddr::from([10, 0, 0, 1]))
            .finish(1);
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(bytes[..4], (bytes.len() as u32).to_ne_bytes());
        let all = Attributes(&bytes[HEADER + 4..]);
        assert_eq!(all.string(3).as_deref(), Some("eth0"));
        assert_eq!(all.nested(18).number(1), Some(7));
        assert_eq!(all.nested(18).big(2), Some(7));
        assert_eq!(all.address(5), Some(IpAddr::from([10, 0, 0, 1])));
        assert_eq!(all.get(4), None);
        for cut in 0..bytes.len() - HEADER - 4 {
            assert!(Attributes(&bytes[HEADER + 4..HEADER + 4 + cut]).all().count() < 3);
        }
    }
}
