//! Netlink messages as bytes: made from attributes, and taken apart (netlink(7)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const REQUEST: u16 = 1;
/// Asks for an acknowledgement.
pub const ACK: u16 = 4;
/// The length of nlmsghdr.
pub const HEADER: usize = 16;
/// Marks an attribute that holds attributes.
pub const NESTED: u16 = 0x8000;
/// Bits of an attribute's type that are not its number.
const TYPE_FLAGS: u16 = 0xc000;

/// A message being made.
#[derive(Debug)]
pub struct Message(Vec<u8>);

impl Message {
    /// A request of this type, with the fixed part that the type has.
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend([0; 4]); // the length, and later the sequence number
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((flags | REQUEST).to_ne_bytes());
        bytes.extend([0; 8]); // the port is the kernel's
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

    /// Adds an attribute with a value of bytes.
    #[must_use]
    pub fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend(((4 + value.len()) as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Adds a text, which ends in a zero.
    #[must_use]
    pub fn string(self, kind: u16, value: &str) -> Self {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// Adds a number in the machine's order, as rtnetlink has them.
    #[must_use]
    pub fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Adds a number in the network's order, as nf_tables has them.
    #[must_use]
    pub fn big(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Adds an address of either family.
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

    /// Adds an attribute with a fixed part and the attributes that `fill` adds.
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

    /// Calls `fill` if there is a value.
    #[must_use]
    pub fn maybe<T>(self, value: Option<T>, fill: impl FnOnce(Self, T) -> Self) -> Self {
        match value {
            Some(value) => fill(self, value),
            None => self,
        }
    }

    /// The bytes to be sent under this number.
    pub fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[0..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        debug_assert!(self.0.len() >= HEADER);
        self.0
    }
}

/// The attributes of a message that has come.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Attributes<'a> {
    /// All of them, in their order: number and value. What is cut short ends them.
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

    /// The value of one.
    pub fn get(self, kind: u16) -> Option<&'a [u8]> {
        self.all().find(|(k, _)| *k == kind).map(|(_, value)| value)
    }

    /// The attributes that one holds.
    pub fn nested(self, kind: u16) -> Self {
        Self(self.get(kind).unwrap_or_default())
    }

    /// A number in the machine's order.
    pub fn number(self, kind: u16) -> Option<u32> {
        Some(u32::from_ne_bytes(self.get(kind)?.try_into().ok()?))
    }

    /// A number in the network's order.
    pub fn big(self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }

    /// A text, without the zero at its end.
    pub fn string(self, kind: u16) -> Option<String> {
        text(self.get(kind)?)
    }

    /// An address of either family.
    pub fn address(self, kind: u16) -> Option<IpAddr> {
        address(self.get(kind)?)
    }
}

/// A text that ends in a zero.
pub fn text(value: &[u8]) -> Option<String> {
    let text = value.split(|b| *b == 0).next()?;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// An address, whose length says its family.
pub fn address(value: &[u8]) -> Option<IpAddr> {
    let v4 = || Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into());
    let v6 = || Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into());
    v4().or_else(v6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_comes_out() {
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
