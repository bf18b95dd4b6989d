//! `--move-device`: an interface of this network namespace becomes one of another namespace, with its addresses (the OCI's
//! config-linux.md, "Network Devices").

use std::fs::File;
use std::os::fd::AsRawFd;

use jc_unshare::{Context, Error, Result};

use crate::linux::link::{self, Link};
use crate::linux::netlink::Socket;
use crate::linux::{enter, route};

/// An interface to move, `NAME[=NEW]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Device {
    name: String,
    /// The name in the other namespace. The kernel replaces `%d` by a number.
    new: String,
}

impl Device {
    /// Parses an interface, `NAME[=NEW]`.
    pub fn parse(word: &str) -> std::result::Result<Self, String> {
        let (name, new) = word.split_once('=').unwrap_or((word, word));
        let is_name = |name: &str| {
            let fits = |byte: u8| !byte.is_ascii_whitespace() && byte != b'/' && byte != b':';
            (1..16).contains(&name.len()) && name != "." && name != ".." && name.bytes().all(fits)
        };
        let plain = new.replacen("%d", "", 1);
        if is_name(name) && is_name(new) && !name.contains('%') && !plain.contains('%') {
            Ok(Self { name: name.to_owned(), new: new.to_owned() })
        } else {
            Err("not NAME[=NEW]".to_owned())
        }
    }

    /// Moves the interface to the namespace of a process, with its permanent addresses, and sets it up. An error if the
    /// new name is in use there.
    pub fn move_to(&self, pid: u32) -> Result<()> {
        let here = Socket::route()?;
        let during =
            |what: &'static str| move |e: crate::linux::netlink::NetlinkError| e.during(what);
        let found = link::by_name(&here, &self.name).map_err(during("find a device"))?;
        let found =
            found.ok_or_else(|| Error::new(format_args!("move {}: No such device", self.name)))?;
        let addresses =
            route::permanent_addresses(&here, found.index).map_err(during("list addresses"))?;
        let path = format!("/proc/{pid}/ns/net");
        let namespace = File::open(&path).on("open", &path)?;
        // The first socket stays in the old namespace.
        enter::process(pid)?;
        let there = Socket::route()?;
        let before = link::list(&there, None).map_err(during("list links"))?;
        if before.iter().any(|link| link.name == self.new) {
            let (name, new) = (&self.name, &self.new);
            return Err(Error::new(format_args!("move {name}: a device {new} is there already")));
        }
        link::move_to(&here, found.index, namespace.as_raw_fd() as u32, &self.new)
            .map_err(|error| error.during(format_args!("move {}", self.name)))?;
        let after = link::list(&there, None).map_err(during("list links"))?;
        let is_new = |link: &&Link| before.iter().all(|old| old.name != link.name);
        let moved = after.iter().find(is_new);
        let moved = moved
            .ok_or_else(|| Error::new(format_args!("move {}: the device has gone", self.name)))?;
        let messages =
            addresses.into_iter().map(|address| route::add_address(moved.index, address));
        there
            .send_all(messages.chain([link::set_up(moved.index)]).collect())
            .map_err(|error| error.during(format_args!("set {} up", moved.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_keeps_its_name_or_has_a_new_one() {
        let device = |name: &str, new: &str| Ok(Device { name: name.into(), new: new.into() });
        assert_eq!(Device::parse("eth0"), device("eth0", "eth0"));
        assert_eq!(Device::parse("eth0=net%d"), device("eth0", "net%d"));
        for word in
            ["", "=a", "a=", "a/b", "a=..", "a=a b", "a=%s", "a=%d%d", "%d", "0123456789abcdef"]
        {
            assert!(Device::parse(word).is_err(), "{word}");
        }
    }
}
