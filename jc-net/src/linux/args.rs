//! The command line.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use clap::Parser;
use ipnetwork::IpNetwork;
use jc_unshare::{Error, Result};

use crate::linux::device::Device;
use crate::linux::dns::{Files, HostsLine};
use crate::linux::link::Mac;
use crate::linux::mode::Network;
use crate::linux::ports::{Expose, Publish};
use crate::linux::record::Policy;
use crate::linux::subnet::DEFAULT_BRIDGE;
use crate::linux::{bridge, lease, subnet};

/// Give PROG a network of its own, then run it
#[derive(Debug, Parser)]
#[group(skip)]
#[command(
    name = "jc-net",
    version,
    override_usage = "jc-net [options] [--] PROG [ARG...]\n       \
                      jc-net --list [--json] | --gc | --repair | --rm-bridge NAME\n       \
                      jc-net --move-device NAME[=NEW] --to PID"
)]
pub struct Args {
    /// bridge (the default for root), none, host, pasta (the default for others), ns:PATH, join:PID
    #[arg(long, value_name = "MODE")]
    pub network: Option<Network>,
    /// Publish a port: [[IP:]HOST:]CONT[/tcp|udp|sctp], ranges too (repeatable)
    #[arg(short, long, value_name = "PORT")]
    pub publish: Vec<Publish>,
    /// Publish all exposed ports on free ports of the host
    #[arg(short = 'P', long)]
    pub publish_all: bool,
    /// Expose one more port for -P: PORT[/tcp|udp|sctp] (repeatable)
    #[arg(long, value_name = "PORT")]
    pub expose: Vec<Expose>,
    /// Use this IPv4 address
    #[arg(long, value_name = "ADDR")]
    pub ip: Option<Ipv4Addr>,
    /// Use this IPv6 address
    #[arg(long, value_name = "ADDR")]
    pub ip6: Option<Ipv6Addr>,
    /// Use this hardware address
    #[arg(long, alias = "mac-address", value_name = "ADDR")]
    pub mac: Option<Mac>,
    /// Use this bridge instead of jc0; it is made if it is missing
    #[arg(long, value_name = "NAME", value_parser = link_name)]
    pub bridge: Option<String>,
    /// Set the bridge's subnet, one of each family (repeatable)
    #[arg(long, value_name = "SUBNET", value_parser = subnet::parse)]
    pub subnet: Vec<IpNetwork>,
    /// Set the bridge's MTU [default: that of the uplink]
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<u32>,
    /// Make a bridge without a route to the outside
    #[arg(long)]
    pub internal: bool,
    /// Make a bridge whose containers cannot reach each other
    #[arg(long)]
    pub isolate: bool,
    /// Write name servers to FILE, in the form of /etc/resolv.conf
    #[arg(long, value_name = "FILE")]
    pub resolv_conf: Option<PathBuf>,
    /// Write this name server in place of the host's (with --resolv-conf, repeatable)
    #[arg(long, value_name = "ADDR", requires = "resolv_conf")]
    pub dns: Vec<IpAddr>,
    /// Write this search domain in place of the host's; a dot for none (with --resolv-conf, repeatable)
    #[arg(long, value_name = "DOMAIN", requires = "resolv_conf", value_parser = domain)]
    pub dns_search: Vec<String>,
    /// Append the program's addresses under NAME to FILE, in the form of /etc/hosts (repeatable)
    #[arg(long, value_name = "NAME:FILE")]
    pub hosts: Vec<HostsLine>,
    /// Write interfaces, addresses, gateways and ports to this descriptor, as JSON
    #[arg(long, value_name = "N")]
    pub status_fd: Option<u32>,
    /// Enter the network namespace that comes from the socket of this number, in place of a new one (with --network
    /// bridge or none)
    #[arg(long, value_name = "N")]
    pub net_fd: Option<u32>,
    /// Print changes on the host, and rules of others that drop forwarded packets
    #[arg(long)]
    pub verbose: bool,
    /// List the containers on bridges
    #[arg(long, group = "action")]
    pub list: bool,
    /// With --list, write JSON
    #[arg(long, requires = "list")]
    pub json: bool,
    /// Remove bridges without containers, and what containers that ended have left
    #[arg(long, group = "action")]
    pub gc: bool,
    /// Restore the rules of all bridges, which a firewall may have removed
    #[arg(long, group = "action")]
    pub repair: bool,
    /// Remove a bridge without containers
    #[arg(long, value_name = "NAME", group = "action", value_parser = link_name)]
    pub rm_bridge: Option<String>,
    /// Move an interface of this network to that of process --to, with its addresses: NAME[=NEW]
    #[arg(long, value_name = "DEVICE", group = "action", value_parser = Device::parse, requires = "to")]
    pub move_device: Option<Device>,
    /// The process whose network gets the interface (with --move-device)
    #[arg(long, value_name = "PID", requires = "move_device")]
    pub to: Option<u32>,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, value_name = "PROG")]
    pub program: Vec<OsString>,
}

/// Parses a name that both a link (dev_valid_name in Linux' net/core/dev.c) and a chain of nf_tables can have.
fn link_name(word: &str) -> std::result::Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let valid =
        (1..=15).contains(&word.len()) && word.bytes().all(plain) && !word.starts_with(['-', '.']);
    if valid {
        Ok(word.to_owned())
    } else {
        Err("not up to 15 letters, digits, dashes, dots and underscores".to_owned())
    }
}

fn domain(word: &str) -> std::result::Result<String, String> {
    if !word.is_empty() && word.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(word.to_owned())
    } else {
        Err("not a domain".to_owned())
    }
}

impl Args {
    /// Whether the command line has an action in place of a program.
    pub fn is_action(&self) -> bool {
        self.list
            || self.gc
            || self.repair
            || self.rm_bridge.is_some()
            || self.move_device.is_some()
    }

    /// Checks that no option is without effect for an action.
    pub fn check_action(&self) -> Result<()> {
        if !self.program.is_empty() {
            return Err(Error::usage("an action runs no program"));
        }
        // clap does not check `requires` if another option of the group is given.
        if self.json && !self.list {
            return Err(Error::usage("--json is for --list"));
        }
        let is_for_program = self.network.is_some() || self.net_fd.is_some();
        if is_for_program || self.shapes_bridge() || self.publishes() || self.writes() {
            Err(Error::usage("an action takes no other option than --verbose"))
        } else {
            Ok(())
        }
    }

    fn shapes_bridge(&self) -> bool {
        self.ip.is_some()
            || self.ip6.is_some()
            || self.mac.is_some()
            || self.bridge.is_some()
            || !self.subnet.is_empty()
            || self.mtu.is_some()
            || self.internal
            || self.isolate
    }

    fn publishes(&self) -> bool {
        !self.publish.is_empty() || self.publish_all
    }

    fn writes(&self) -> bool {
        self.resolv_conf.is_some() || !self.hosts.is_empty() || self.status_fd.is_some()
    }

    /// Checks that no option is without effect for this kind of network.
    pub fn check(&self, network: &Network) -> Result<()> {
        let name = network.name();
        if *network != Network::Bridge && self.shapes_bridge() {
            return Err(Error::usage(format_args!(
                "--ip, --ip6, --mac, --bridge, --subnet, --mtu, --internal and --isolate are for \
                 --network bridge, not {name}"
            )));
        }
        if self.net_fd.is_some() && !matches!(network, Network::Bridge | Network::None) {
            return Err(Error::usage(format_args!(
                "--net-fd is for --network bridge or none, not {name}"
            )));
        }
        let can_publish = matches!(network, Network::Bridge | Network::Pasta);
        if self.publishes() && !can_publish {
            return Err(Error::usage(format_args!(
                "ports are published with --network bridge or pasta, not {name}"
            )));
        }
        if *network == Network::Bridge && self.publish.iter().any(Publish::is_at_v6_loopback) {
            return Err(Error::usage(
                "publish at ::1: the kernel takes no answers for ::1 from a bridge",
            )
            .hint("-p 127.0.0.1:HOST:CONT publishes at the loopback of IPv4"));
        }
        if !self.expose.is_empty() && !self.publish_all {
            return Err(Error::usage("--expose: publishes nothing without -P").hint(
                "containers of a bridge reach all ports of each other; -p PORT publishes one",
            ));
        }
        if self.internal && self.publishes() {
            return Err(Error::usage("--internal: no port can be published there"));
        }
        for v4 in [true, false] {
            if self.subnet.iter().filter(|subnet| subnet.is_ipv4() == v4).count() > 1 {
                return Err(Error::usage("--subnet: a bridge has one of each family"));
            }
        }
        Ok(())
    }

    /// The properties of the bridge that the options require.
    pub fn bridge(&self) -> bridge::BridgeSpec<'_> {
        bridge::BridgeSpec {
            name: self.bridge.as_deref().unwrap_or(DEFAULT_BRIDGE),
            subnets: &self.subnet,
            needs_v6: self.ip6.is_some(),
            policy: Policy { internal: self.internal, isolate: self.isolate },
            mtu: self.mtu,
        }
    }

    /// The properties of the veth that the options require.
    pub fn lease(&self) -> lease::LeaseSpec {
        lease::LeaseSpec { ip: self.ip, ip6: self.ip6, mac: self.mac, hairpin: self.publishes() }
    }

    /// The options for files of name servers and names.
    pub fn files(&self) -> Files<'_> {
        Files {
            resolv_conf: self.resolv_conf.as_deref(),
            servers: &self.dns,
            search: &self.dns_search,
            hosts: &self.hosts,
        }
    }

    /// The ports to publish.
    pub fn published(&self) -> Vec<Publish> {
        self.publish.iter().cloned().chain(self.expose.iter().map(Expose::publish)).collect()
    }
}
