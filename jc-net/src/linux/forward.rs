//! Forwarding between bridges and the links of the host to which routes lead. The alias of a bridge records the
//! settings that jc-net has changed, so that the removal of the last bridge restores them.

use std::collections::BTreeSet;
use std::fs;

use jc_unshare::{Context, Result};

use crate::linux::host::Host;
use crate::linux::link::{self, LOOPBACK};
use crate::linux::record::{ALL_V6, Opened, is_own_bridge};
use crate::linux::route::Route;
use crate::linux::sysctl;

/// The links without forwarding to which routes of the host lead. A host that is a router has no such link.
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
        let is_uplink = |link: &link::Link| link.master.is_none() && !is_own_bridge(link);
        let Some(link) = found.filter(is_uplink) else { continue };
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

/// Enables forwarding on a bridge and on the links.
pub fn open(host: &Host, bridge: &str, opened: &Opened) -> Result<()> {
    sysctl::ensure(&v4_setting(bridge), "1")?;
    sysctl::ensure_if_present(&v6_setting(bridge), "1")?;
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

/// Restores the settings of the links, unless the host has become a router since.
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
        // `open_all_v6` has set all links to 0, so links with 1 are settings of the administrator.
        forwarding.iter().try_for_each(|setting| sysctl::set(setting, "1"))?;
        host.say("set net.ipv6.conf.all.forwarding to 0");
    }
    Ok(())
}

/// Sets `net.ipv6.conf.all.forwarding`, but leaves the settings of single links: a link with forwarding ignores router
/// advertisements, from which the host may have its default route. The kernel removes such routes at the change, except
/// on links whose `accept_ra` is 2.
fn open_all_v6() -> Result<()> {
    let listening = settings_v6("accept_ra", "1")?;
    let quiet = settings_v6("forwarding", "0")?;
    listening.iter().try_for_each(|setting| sysctl::set(setting, "2"))?;
    let outcome = sysctl::set(ALL_V6, "1")
        .and_then(|()| quiet.iter().try_for_each(|setting| sysctl::set(setting, "0")));
    outcome.and(listening.iter().try_for_each(|setting| sysctl::set(setting, "1")))
}

/// The settings with this name that have this value, of all links and of the default for new links.
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
