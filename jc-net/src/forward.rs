//! Forwarding: only links of the host that lead somewhere, and bridges, pass packets on. The alias of a
//! bridge records which settings jc-net has changed, so that the last bridge gives them back.

use std::collections::BTreeSet;
use std::fmt::{self, Display};
use std::fs;

use jc_unshare::{Context, Error, Result};

use crate::host::Host;
use crate::link::{self, LOOPBACK};
use crate::route::Route;
use crate::{bridge, sysctl};

const ALL_V6: &str = "ipv6/conf/all/forwarding";

/// Links that forward since jc-net has set them to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Opened {
    /// By IPv4.
    pub v4: BTreeSet<String>,
    /// By IPv6.
    pub v6: BTreeSet<String>,
    /// Whether jc-net has set `net.ipv6.conf.all.forwarding`: before `force_forwarding` (Linux 6.17) the
    /// kernel forwards IPv6 on all links or on none.
    pub all_v6: bool,
}

/// The words of an alias: `4=eth0 6=eth0 6=all`. No link can be named `all`.
impl Display for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.v4.iter().try_for_each(|link| write!(f, " 4={link}"))?;
        self.v6.iter().try_for_each(|link| write!(f, " 6={link}"))?;
        if self.all_v6 { f.write_str(" 6=all") } else { Ok(()) }
    }
}

impl Opened {
    /// Takes a word of an alias, and says whether the word is one of these.
    pub fn read(&mut self, word: &str) -> bool {
        match word.split_once('=') {
            Some(("4", link)) => self.v4.insert(link.to_owned()),
            Some(("6", "all")) => !std::mem::replace(&mut self.all_v6, true),
            Some(("6", link)) => self.v6.insert(link.to_owned()),
            _ => false,
        }
    }

    /// Adds those of another bridge.
    pub fn add(&mut self, other: &Self) {
        self.v4.extend(other.v4.iter().cloned());
        self.v6.extend(other.v6.iter().cloned());
        self.all_v6 |= other.all_v6;
    }

    /// Forgets the links of a host that has become a router.
    pub fn forget_routers(&mut self) -> Result<()> {
        if sysctl::get("ipv4/ip_forward")?.as_deref() == Some("1") {
            self.v4.clear();
        }
        if !self.all_v6 && sysctl::get(ALL_V6)?.as_deref() == Some("1") {
            self.v6.clear();
        }
        Ok(())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The links to which routes of the host lead and that do not forward yet. A host that is a router
/// already has none.
pub fn find(host: &Host, routes: &[Route], v6: bool) -> Result<Opened> {
    let mut opened = Opened::default();
    let all_v6 = sysctl::get(ALL_V6)?;
    let v6 = v6 && all_v6.as_deref() == Some("0");
    let all_or_none = sysctl::get(&v6_setting("all"))?.is_none();
    let indices: BTreeSet<u32> = routes.iter().filter_map(|route| route.link).collect();
    for index in indices.into_iter().filter(|index| *index != LOOPBACK) {
        let found = link::by_index(&host.route, index);
        let found = found.map_err(|r| r.during("look for the links that routes lead to"))?;
        // A port of a bridge passes packets to the bridge, and has a route for link-local addresses.
        let leads = |link: &link::Link| link.master.is_none() && !bridge::is_ours(link);
        let Some(link) = found.filter(leads) else { continue };
        let is_off = |setting: String| Ok(sysctl::get(&setting)?.as_deref() == Some("0"));
        if is_off(v4_setting(&link.name))? {
            opened.v4.insert(link.name.clone());
        }
        if v6 && (all_or_none || is_off(v6_setting(&link.name))?) {
            opened.v6.insert(link.name);
        }
    }
    opened.all_v6 = v6 && all_or_none;
    Ok(opened)
}

fn v4_setting(link: &str) -> String {
    format!("ipv4/conf/{link}/forwarding")
}

fn v6_setting(link: &str) -> String {
    format!("ipv6/conf/{link}/force_forwarding")
}

/// Lets a bridge and the links pass packets on.
pub fn open(host: &Host, bridge: &str, opened: &Opened) -> Result<()> {
    sysctl::ensure(&v4_setting(bridge), "1")?;
    sysctl::ensure_if_there(&v6_setting(bridge), "1")?;
    let v4 = opened.v4.iter().map(|link| v4_setting(link));
    let v6 = opened.v6.iter().map(|link| v6_setting(link));
    for setting in v4.chain(v6) {
        if sysctl::get(&setting)?.as_deref() == Some("0") {
            sysctl::set(&setting, "1")?;
            host.say(format_args!("set net.{} to 1", setting.replace('/', ".")));
        }
    }
    if opened.all_v6 && sysctl::get(ALL_V6)?.as_deref() == Some("0") {
        open_all_v6()?;
        host.say("set net.ipv6.conf.all.forwarding to 1");
    }
    Ok(())
}

/// Sets the links back, unless the host has become a router meanwhile.
pub fn close(host: &Host, opened: &Opened) -> Result<()> {
    let is_router_v4 = sysctl::get("ipv4/ip_forward")?.as_deref() == Some("1");
    let is_router_v6 = sysctl::get(ALL_V6)?.as_deref() == Some("1");
    let v4 = opened.v4.iter().filter(|_| !is_router_v4).map(|link| v4_setting(link));
    let v6 = opened.v6.iter().filter(|_| !is_router_v6).map(|link| v6_setting(link));
    for setting in v4.chain(v6) {
        if sysctl::get(&setting)?.as_deref() == Some("1") {
            sysctl::set(&setting, "0")?;
            host.say(format_args!("set net.{} to 0", setting.replace('/', ".")));
        }
    }
    if opened.all_v6 && is_router_v6 {
        let forwarding = settings_v6("forwarding", "1")?;
        sysctl::set(ALL_V6, "0")?;
        // Zero before this, since `open_all_v6` has set them to that: links that somebody else has set.
        forwarding.iter().try_for_each(|setting| sysctl::set(setting, "1"))?;
        host.say("set net.ipv6.conf.all.forwarding to 0");
    }
    Ok(())
}

/// Sets `net.ipv6.conf.all.forwarding`, and leaves the settings of each link as they were: a link whose
/// own setting is 1 ignores router advertisements, by which the host may have its default route. The
/// kernel also removes such routes once, but for links with an `accept_ra` of 2.
fn open_all_v6() -> Result<()> {
    let listening = settings_v6("accept_ra", "1")?;
    let quiet = settings_v6("forwarding", "0")?;
    listening.iter().try_for_each(|setting| sysctl::set(setting, "2"))?;
    let outcome = sysctl::set(ALL_V6, "1")
        .and_then(|()| quiet.iter().try_for_each(|setting| sysctl::set(setting, "0")));
    outcome.and(listening.iter().try_for_each(|setting| sysctl::set(setting, "1")))
}

/// The settings of that name, of links and of new links, that have that value.
fn settings_v6(name: &str, value: &str) -> Result<Vec<String>> {
    let directory = "/proc/sys/net/ipv6/conf";
    let mut settings = Vec::new();
    for entry in fs::read_dir(directory).on("read", directory)? {
        let link = entry.on("read", directory)?.file_name().to_string_lossy().into_owned();
        let setting = format!("ipv6/conf/{link}/{name}");
        if link != "all" && sysctl::get(&setting)?.as_deref() == Some(value) {
            settings.push(setting);
        }
    }
    Ok(settings)
}

/// The error where an alias has no room for the links.
pub fn too_many(opened: &Opened) -> Error {
    let count = opened.v4.len() + opened.v6.len();
    Error::new(format_args!("let {count} links of the host forward: too many to be recorded"))
        .hint("set net.ipv4.ip_forward and net.ipv6.conf.all.forwarding to 1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_is_read_again() {
        let mut opened = Opened::default();
        for word in ["4=eth0", "4=wg0", "6=eth0", "6=all"] {
            assert!(opened.read(word), "{word}");
        }
        assert!(!opened.read("lab") && !opened.read("5=eth0"));
        assert_eq!(opened.to_string(), " 4=eth0 4=wg0 6=eth0 6=all");
        assert!(!opened.is_empty() && Opened::default().is_empty());
    }
}
