//! The recipe for each kind of network.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::process::ExitCode;

use ipnetwork::IpNetwork;
use jc_unshare::early_network::Receiver;
use jc_unshare::events::{StatusFd, exec_reporting};
use jc_unshare::info;
use jc_unshare::namespaces::{loopback_up, unshare};
use jc_unshare::program::Program;
use jc_unshare::supervise::NewChild;
use jc_unshare::sys::clone;
use jc_unshare::{Error, Result};
use rustix::process::getpid;
use serde_json::{Value, json};

use crate::TOOL;
use crate::linux::args::Args;
use crate::linux::bridge::{self, Bridge};
use crate::linux::dns::Reach;
use crate::linux::host::Host;
use crate::linux::lease::{self, INSIDE, Veth};
use crate::linux::link::{self, LOOPBACK, Link};
use crate::linux::mode::Network;
use crate::linux::netlink::Socket;
use crate::linux::ports::{self, BoundPorts};
use crate::linux::rules;
use crate::linux::wait::wait_until_ready;
use crate::linux::{actions, addresses, conntrack, enter, route, status, sysctl};

/// Replaces this process by the payload. If the payload's network needs a waiting process, the payload is a child, and the
/// result is its exit code.
pub fn run(args: &Args) -> Result<ExitCode> {
    info::check_distinct([("--status-fd", args.status_fd), ("--net-fd", args.net_fd)])?;
    // This process has opened no descriptor yet, so the number cannot be that of a descriptor of its own.
    let status = args.status_fd.map(|number| StatusFd::open(TOOL, number)).transpose()?;
    let early = args.net_fd.map(Receiver::inherit).transpose()?;
    let network = args.network.clone().map_or_else(enter::default_network, Ok)?;
    args.check(&network)?;
    match &network {
        Network::Bridge => bridged(args, status, early),
        Network::None => {
            enter_new(early)?;
            loopback_up()?;
            become_program(args, &network, status, Reach::Nothing)
        }
        Network::Host => become_program(args, &network, status, Reach::Host),
        Network::Ns(path) => {
            enter::file(path)?;
            become_program(args, &network, status, Reach::Outside { v6: true })
        }
        Network::Join(pid) => {
            enter::process(*pid)?;
            become_program(args, &network, status, Reach::Outside { v6: true })
        }
        Network::Pasta => crate::linux::pasta::run(args, status),
    }
}

/// Runs the action of `--list`, `--gc`, `--repair` or `--rm-bridge`.
pub fn act(args: &Args) -> Result<ExitCode> {
    let host = Host::open(args.verbose)?;
    let outcome = if args.list {
        actions::list(&host, args.json)
    } else if args.gc {
        actions::collect(&host)
    } else if args.repair {
        actions::repair(&host)
    } else if let Some(name) = &args.rm_bridge {
        actions::remove_bridge(&host, name)
    } else {
        Ok(())
    };
    outcome.and(host.lock.remove()).map(|()| ExitCode::SUCCESS)
}

/// Writes the files and the event of a network that existed before, or that has only loopback, and executes the program.
fn become_program(
    args: &Args,
    network: &Network,
    status: Option<StatusFd>,
    reach: Reach,
) -> Result<ExitCode> {
    let networks = if args.hosts.is_empty() && status.is_none() {
        Vec::new()
    } else {
        addresses::list(&Socket::route()?)?
    };
    let addresses: Vec<IpAddr> = networks.iter().map(IpNetwork::ip).collect();
    args.files().write(reach, &addresses)?;
    if let Some(status) = status {
        let addresses = status::networks(networks.into_iter());
        let network = json!({"network": network.name(), "addresses": addresses});
        status.report("network", &network.to_string())?;
    }
    Err(exec_reporting(status, &args.program))
}

/// Enters a new network namespace: that of `--net-fd`, or one that this process creates.
fn enter_new(early: Option<Receiver>) -> Result<()> {
    early.map_or_else(|| unshare(clone::NEWNET), Receiver::enter)
}

/// Connects a new network namespace to a bridge.
fn bridged(args: &Args, status: Option<StatusFd>, early: Option<Receiver>) -> Result<ExitCode> {
    let mut host = Host::open(args.verbose)?;
    let bridge = bridge::ensure(&host, &args.bridge())?;
    if args.verbose {
        hint_at_foreign_rules(&host, &bridge)?;
    }
    // The sockets of published ports belong to the host's namespace.
    let mut bound = bind_ports(args, &bridge)?;
    let has_ports = !bound.forwards.is_empty();
    if bound.has_udp() {
        host.late = Some(Socket::netfilter()?);
    }
    let is_given = early.is_some();
    enter_new(early)?;
    let inside = Socket::route()?;
    if is_given && find_eth0(&inside)?.is_some() {
        return Err(Error::new("--net-fd: the network namespace has an eth0"));
    }
    let pid = getpid().as_raw_nonzero().get().unsigned_abs();
    let veth = lease::connect(&host, &bridge, args.lease(), pid)?;
    configure(&inside, &bridge, &veth)?;
    wait_until_ready(&host.route, &inside, &veth.name, veth.v6.map(|v6| v6.ip()))?;
    drop(inside);
    let addresses = veth.addresses();
    if has_ports {
        bound.set_targets(&addresses);
        rules::publish(&host.netfilter, &veth.names(), &bound.forwards)?;
    }
    // The rules exist now, so the kernel applies them to an entry that a later datagram creates.
    let reused = if args.lease().is_reused(&bridge) { &addresses[..] } else { &[] };
    conntrack::delete_stale(&host.netfilter, &host.route, &bound.forwards, reused)?;
    let reach = if bridge.policy.internal {
        Reach::Nothing
    } else {
        Reach::Outside { v6: veth.v6.is_some() }
    };
    args.files().write(reach, &addresses)?;
    if let Some(status) = status {
        status.report("network", &event(&bridge, &veth, &bound).to_string())?;
    }
    if has_ports {
        return run_with_ports(args, host, &bound, status);
    }
    Err(exec_reporting(status, &args.program))
}

/// Binds the published ports, and enables the route to them from 127.0.0.1.
fn bind_ports(args: &Args, bridge: &Bridge) -> Result<BoundPorts> {
    let bound = ports::bind_all(&args.published(), bridge.v6.is_some())?;
    if bound.forwards.is_empty() {
        return Ok(bound);
    }
    let name = &bridge.name;
    if bridge.policy.internal {
        return Err(Error::new(format_args!("{name} is internal: no port can be published")));
    }
    // 127.0.0.1 leads to the container. A rule drops packets from the bridge to such addresses.
    sysctl::ensure(&format!("ipv4/conf/{name}/route_localnet"), "1")?;
    Ok(bound)
}

/// Writes hints about chains of other programs that drop packets to and from the bridge.
fn hint_at_foreign_rules(host: &Host, bridge: &Bridge) -> Result<()> {
    for chain in rules::chains_that_drop(&host.netfilter)? {
        let name = &bridge.name;
        host.say(format_args!(
            "hint: {chain} drops packets that no rule accepts: accept those of {name} there"
        ));
    }
    Ok(())
}

/// Runs the program as a child. The sockets and rules of published ports end with this process, even by SIGKILL.
fn run_with_ports(
    args: &Args,
    host: Host,
    bound: &BoundPorts,
    status: Option<StatusFd>,
) -> Result<ExitCode> {
    let Host { netfilter, route, lock, late, .. } = host;
    drop(lock);
    let late = late.map(|late| (late, route));
    let program = Program::new(&args.program)?.reporting(status);
    let child = NewChild::of(TOOL).spawn_program(program)?;
    let mut keep = vec![netfilter.as_fd()];
    keep.extend(late.iter().flat_map(|(late, route)| [late.as_fd(), route.as_fd()]));
    keep.extend(bound.sockets.iter().map(AsFd::as_fd));
    let exit = child.wait_keeping(&keep)?;
    drop(netfilter);
    if let Some((late, route)) = late {
        let addresses: Vec<IpAddr> = bound.forwards.iter().map(|forward| forward.to).collect();
        // stderr is closed, so an error has no place. The next start with the port deletes the entries too.
        drop(conntrack::delete_stale(&late, &route, &bound.forwards, &addresses));
    }
    Ok(exit.end())
}

fn find_eth0(inside: &Socket) -> Result<Option<Link>> {
    link::by_name(inside, INSIDE).map_err(|refusal| refusal.during("look for eth0"))
}

/// Configures addresses and routes of the link in the container.
fn configure(inside: &Socket, bridge: &Bridge, veth: &Veth) -> Result<()> {
    let link = find_eth0(inside)?.ok_or_else(|| Error::new("eth0: removed meanwhile"))?;
    let index = link.index;
    // The link is still down: a router advertisement of a neighbour could arrive as soon as it is up.
    sysctl::quiet_ipv6(INSIDE)?;
    if veth.v6.is_none() {
        sysctl::ensure_if_present(&format!("ipv6/conf/{INSIDE}/disable_ipv6"), "1")?;
    } else if link.without_v6 {
        sysctl::set(&format!("ipv6/conf/{INSIDE}/disable_ipv6"), "0")?;
    }
    let mut messages = vec![link::set_up(LOOPBACK), link::set_up(index)];
    messages.extend(veth.networks().map(|network| route::add_address(index, network)));
    if !bridge.policy.internal {
        let gateways = gateways(bridge).filter(|gateway| gateway.is_ipv4() || veth.v6.is_some());
        messages.extend(gateways.map(|gateway| route::add_default(index, gateway)));
    }
    let names = veth.networks().map(|network| format!("add address {network}"));
    let up = ["set lo up".to_owned(), "set eth0 up".to_owned()];
    let mut names: Vec<String> = up.into_iter().chain(names).collect();
    names.resize(messages.len(), "add the default route".to_owned());
    inside.send_all(messages).map_err(|error| {
        let index = error.index;
        error.during(names.get(index).map_or("configure eth0", String::as_str))
    })
}

fn gateways(bridge: &Bridge) -> impl Iterator<Item = IpAddr> {
    let v6 = bridge.v6.map(|v6| IpAddr::from(v6.ip()));
    [IpAddr::from(bridge.v4.ip())].into_iter().chain(v6)
}

/// The event `network` (jc(7)).
fn event(bridge: &Bridge, veth: &Veth, bound: &BoundPorts) -> Value {
    let gateways = gateways(bridge).filter(|_| !bridge.policy.internal);
    json!({
        "network": "bridge",
        "interface": INSIDE,
        "host-interface": veth.name,
        "bridge": bridge.name,
        "mac": veth.mac.to_string(),
        "mtu": bridge.mtu,
        "addresses": status::networks(veth.networks()),
        "gateways": status::addresses(gateways),
        "ports": status::ports(&bound.forwards),
    })
}
