//! The record in the alias of each bridge of jc-net: the policy of the bridge, and the links of the host that forward
//! because of the bridge.

use std::collections::BTreeSet;
use std::fmt::{self, Display};

use jc_unshare::{Error, Result};

use crate::linux::link::Link;
use crate::linux::sysctl;

/// The setting of IPv6 forwarding on all links.
pub const ALL_V6: &str = "ipv6/conf/all/forwarding";

/// The first word of the alias.
const PREFIX: &str = "jc";

/// The traffic that a bridge drops.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Policy {
    /// Whether the bridge drops packets to and from other links.
    pub internal: bool,
    /// Whether the bridge drops packets between containers.
    pub isolate: bool,
}

/// The record of a bridge.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// The traffic that the bridge drops.
    pub policy: Policy,
    /// The settings that jc-net has changed for the bridge.
    pub opened: Opened,
}

impl Record {
    /// The record of a link. `None`: the link is no bridge of jc-net.
    pub fn of(link: &Link) -> Option<Self> {
        if link.kind == "bridge" { Self::parse(&link.alias) } else { None }
    }

    /// Parses an alias. `None`: the alias has a word that jc-net does not write.
    fn parse(alias: &str) -> Option<Self> {
        let mut record = Self::default();
        let mut words = alias.split(' ');
        let has_prefix = words.next() == Some(PREFIX);
        let is_known = |word: &str| match word {
            "internal" => !std::mem::replace(&mut record.policy.internal, true),
            "isolate" => !std::mem::replace(&mut record.policy.isolate, true),
            word => record.opened.parse_word(word),
        };
        (has_prefix && words.all(is_known)).then_some(record)
    }

    /// The alias. An alias longer than the kernel's limit (IFALIASZ) is an error.
    pub fn to_alias(&self) -> Result<String> {
        const LONGEST: usize = 255;
        let mut alias = PREFIX.to_owned();
        for (is, word) in [(self.policy.internal, " internal"), (self.policy.isolate, " isolate")] {
            if is {
                alias.push_str(word);
            }
        }
        alias.push_str(&self.opened.to_string());
        if alias.len() > LONGEST { Err(self.opened.too_many()) } else { Ok(alias) }
    }
}

/// Whether a link is a bridge of jc-net. A bridge that is down is incomplete.
pub fn is_own_bridge(link: &Link) -> bool {
    Record::of(link).is_some()
}

/// Links of the host on which jc-net has enabled forwarding.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Opened {
    /// The names of links that forward IPv4.
    pub v4: BTreeSet<String>,
    /// The names of links that forward IPv6.
    pub v6: BTreeSet<String>,
    /// Whether jc-net has set `net.ipv6.conf.all.forwarding`. Before Linux 6.17, which adds `force_forwarding`, the
    /// kernel forwards IPv6 on all links or on none.
    pub all_v6: bool,
}

/// The words of an alias: `4=eth0 6=eth0 6=all`. The kernel allows no link with the name `all`.
impl Display for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.v4.iter().try_for_each(|link| write!(f, " 4={link}"))?;
        self.v6.iter().try_for_each(|link| write!(f, " 6={link}"))?;
        if self.all_v6 { f.write_str(" 6=all") } else { Ok(()) }
    }
}

impl Opened {
    /// Parses a word of an alias. Returns whether the word names a link that the alias has not named yet.
    fn parse_word(&mut self, word: &str) -> bool {
        match word.split_once('=') {
            Some(("4", link)) => self.v4.insert(link.to_owned()),
            Some(("6", "all")) => !std::mem::replace(&mut self.all_v6, true),
            Some(("6", link)) => self.v6.insert(link.to_owned()),
            _ => false,
        }
    }

    /// Adds the links of another record.
    pub fn add(&mut self, other: &Self) {
        self.v4.extend(other.v4.iter().cloned());
        self.v6.extend(other.v6.iter().cloned());
        self.all_v6 |= other.all_v6;
    }

    /// Removes the links if the host has become a router: forwarding then does not depend on jc-net.
    pub fn clear_if_router(&mut self) -> Result<()> {
        if sysctl::get("ipv4/ip_forward")?.as_deref() == Some("1") {
            self.v4.clear();
        }
        if !self.all_v6 && sysctl::get(ALL_V6)?.as_deref() == Some("1") {
            self.v6.clear();
        }
        Ok(())
    }

    /// Whether jc-net has changed no setting.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The error for an alias without room for the links.
    fn too_many(&self) -> Error {
        let count = self.v4.len() + self.v6.len();
        Error::new(format_args!("let {count} links of the host forward: too many to be recorded"))
            .hint("set net.ipv4.ip_forward and net.ipv6.conf.all.forwarding to 1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_parsed_as_it_is_written() {
        let mut opened = Opened::default();
        for word in ["4=eth0", "4=wg0", "6=eth0", "6=all"] {
            assert!(opened.parse_word(word), "{word}");
        }
        assert!(!opened.parse_word("lab") && !opened.parse_word("5=eth0"));
        assert_eq!(opened.to_string(), " 4=eth0 4=wg0 6=eth0 6=all");
        assert!(!opened.is_empty() && Opened::default().is_empty());
    }
}
