//! What the tool does on Linux: one recipe for each kind of network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use jc_unshare::events::{StatusFd, exec_reporting};
use jc_unshare::namespaces::{loopback_up, unshare};
use jc_unshare::program::Program;
use jc_unshare::supervise::spawn_program;
use jc_unshare::sys::clone;
use jc_unshare::{Error, Result};
use rustix::process::getpid;
use rustix::thread::sched_yield;
use serde_json::{Value, json};

use crate::bridge::{self, Bridge};
use crate::dns::{self, Reach};
use crate::host::Host;
use crate::lease::{self, Cable, INSIDE};
use crate::link::{self, LOOPBACK};
use crate::netlink::{Refusal, Socket};
use crate::ports::{self, Held};
use crate::rules;
use crate::{Args, Network, TOOL, actions, conntrack, enter, route, status, sysctl};

/// Does what the command line says. Returns the payload's code where this process has to hold
/// something; else it becomes the payload.
pub fn run(args: &Args) -> Result<ExitCode> {
    // First: a descriptor that the caller has not opened must not turn out to be one of ours.
    let status = args.status_fd.map(|number| StatusFd::open(TOOL, number)).transpose()?;
    let network = args.network.clone().map_or_else(enter::default_network, Ok)?;
    args.check(&network)?;
    match &network {
        Network::Bridge => bridged(args, status),
        Network::None => {
            unshare(clone::NEWNET)?;
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
        Network::Pasta => crate::pasta::run(args, status),
    }
}

/// `--list`, `--gc`, `--repair`, `--rm-bridge`
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

/// What there is to tell of a network that was there, or that has only loopback; then the program.
fn become_program(
    args: &Args,
    network: &Network,
    status: Option<StatusFd>,
    reach: Reach,
) -> Result<ExitCode> {
    let networks = if args.hosts.is_empty() && status.is_none() {
        Vec::new()
    } else {
        present_addresses(&Socket::route()?)?
    };
    let addresses: Vec<IpAddr> = networks.iter().map(IpNetwork::ip).collect();
    write_files(args, reach, &addresses)?;
    if let Some(status) = status {
        let addresses = status::networks(networks.into_iter());
        let network = json!({"network": network.name(), "addresses": addresses});
        status.report("network", &network.to_string())?;
    }
    Err(exec_reporting(status, &args.program))
}

/// The addresses in the present network namespace: those that others can reach, else loopback.
pub fn present_addresses(socket: &Socket) -> Result<Vec<IpNetwork>> {
    let doing = |refusal: Refusal| refusal.during("list addresses");
    let mut all = Vec::new();
    for link in link::list(socket, None).map_err(doing)? {
        if link.index != LOOPBACK {
            all.extend(route::addresses(socket, link.index).map_err(doing)?);
        }
    }
    if all.is_empty() {
        let v6 = sysctl::get("ipv6/conf/lo/disable_ipv6")?.as_deref() == Some("0");
        let v6 = v6.then_some(IpAddr::from(Ipv6Addr::LOCALHOST));
        let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST)].into_iter().chain(v6);
        let with_prefix =
            |address: IpAddr| IpNetwork::new(address, if address.is_ipv4() { 8 } else { 128 }).ok();
        all.extend(loopback.filter_map(with_prefix));
    }
    Ok(all)
}

/// The files that the next links bind over those of the root.
pub fn write_files(args: &Args, reach: Reach, addresses: &[IpAddr]) -> Result<()> {
    if let Some(path) = &args.resolv_conf {
        let wanted = dns::Wanted { servers: &args.dns, search: &args.dns_search };
        dns::write(path, &wanted, reach)?;
    }
    args.hosts.iter().try_for_each(|line| line.append(addresses))
}

/// A cable to a bridge.
fn bridged(args: &Args, status: Option<StatusFd>) -> Result<ExitCode> {
    let mut host = Host::open(args.verbose)?;
    let bridge = bridge::ensure(&host, &args.bridge())?;
    if args.verbose {
        hint_at_foreign_rules(&host, &bridge)?;
    }
    // Ports are the host's, and so must be taken here.
    let mut held = ports::hold(&args.published(), bridge.v6.is_some())?;
    let has_ports = !held.forwards.is_empty();
    if has_ports && bridge.policy.internal {
        return Err(Error::new(format_args!(
            "{} is internal: no port can be published",
            bridge.name
        )));
    }
    if has_ports {
        // So that 127.0.0.1 leads to the container; the bridge's rules let nobody misuse it.
        sysctl::ensure(&format!("ipv4/conf/{}/route_localnet", bridge.name), "1")?;
    }
    if held.has_udp() {
        host.late = Some(Socket::netfilter()?);
    }
    unshare(clone::NEWNET)?;
    let inside = Socket::route()?;
    let pid = getpid().as_raw_nonzero().get().unsigned_abs();
    let cable = lease::plug(&host, &bridge, args.lease(), pid)?;
    configure(&inside, &bridge, &cable)?;
    wait_until_ready(&host.route, &inside, &cable)?;
    drop(inside);
    let addresses = cable.addresses();
    if has_ports {
        held.lead_to(&addresses);
        rules::publish(&host.netfilter, &cable.names(), &held.forwards)?;
    }
    // Only now: a datagram that comes next makes an entry by the new rules.
    let reused = if args.lease().is_reused(&bridge) { &addresses[..] } else { &[] };
    conntrack::forget(&host.netfilter, &host.route, &held.forwards, reused)?;
    let reach = match bridge.policy.internal {
        true => Reach::Nothing,
        false => Reach::Outside { v6: cable.v6.is_some() },
    };
    write_files(args, reach, &addresses)?;
    if let Some(status) = status {
        status.report("network", &tell(&bridge, &cable, &held).to_string())?;
    }
    match has_ports {
        true => hold(args, host, &held, status),
        false => Err(exec_reporting(status, &args.program)),
    }
}

/// Says which chains of others drop packets to and from the bridge.
fn hint_at_foreign_rules(host: &Host, bridge: &Bridge) -> Result<()> {
    for chain in rules::who_drops_forwarded(&host.netfilter)? {
        let name = &bridge.name;
        host.say(format_args!(
            "hint: {chain} drops what it does not know: let {name} through there"
        ));
    }
    Ok(())
}

/// Waits for the program with the ports in hand: the ports are free, and their rules gone, when this
/// process ends, even by SIGKILL.
fn hold(args: &Args, host: Host, held: &Held, status: Option<StatusFd>) -> Result<ExitCode> {
    let Host { netfilter, route, lock, late, .. } = host;
    drop(lock);
    let late = late.map(|late| (late, route));
    let program = Program::new(&args.program)?.reporting(status);
    let child = spawn_program(TOOL, 0, None, program)?;
    let mut keep = vec![netfilter.as_fd()];
    keep.extend(late.iter().flat_map(|(late, route)| [late.as_fd(), route.as_fd()]));
    keep.extend(held.sockets.iter().map(AsFd::as_fd));
    let exit = child.wait_holding(&keep)?;
    drop(netfilter);
    if let Some((late, route)) = late {
        let addresses: Vec<IpAddr> = held.forwards.iter().map(|forward| forward.to).collect();
        // No error can be written any more. The next start with the port deletes the entries too.
        drop(conntrack::forget(&late, &route, &held.forwards, &addresses));
    }
    Ok(exit.end())
}

/// Addresses and routes of the container's end.
fn configure(inside: &Socket, bridge: &Bridge, cable: &Cable) -> Result<()> {
    let found = link::by_name(inside, INSIDE).map_err(|r| r.during("look for eth0"))?;
    let link = found.ok_or_else(|| Error::new("eth0: removed meanwhile"))?;
    let index = link.index;
    // Before the link is up: a neighbour's router advertisement comes any time after that.
    sysctl::quiet_ipv6(INSIDE)?;
    if cable.v6.is_none() {
        sysctl::ensure_if_there(&format!("ipv6/conf/{INSIDE}/disable_ipv6"), "1")?;
    } else if link.without_v6 {
        sysctl::set(&format!("ipv6/conf/{INSIDE}/disable_ipv6"), "0")?;
    }
    let mut messages = vec![link::set_up(LOOPBACK), link::set_up(index)];
    messages.extend(cable.networks().map(|network| route::add_address(index, network)));
    if !bridge.policy.internal {
        let gateways = gateways(bridge).filter(|gateway| gateway.is_ipv4() || cable.v6.is_some());
        messages.extend(gateways.map(|gateway| route::add_default(index, gateway)));
    }
    let names = cable.networks().map(|network| format!("add address {network}"));
    let up = ["set lo up".to_owned(), "set eth0 up".to_owned()];
    let mut names: Vec<String> = up.into_iter().chain(names).collect();
    names.resize(messages.len(), "add the default route".to_owned());
    inside.send_all(messages).map_err(|refusal| {
        let index = refusal.index;
        refusal.during(names.get(index).map_or("configure eth0", String::as_str))
    })
}

fn gateways(bridge: &Bridge) -> impl Iterator<Item = IpAddr> {
    let v6 = bridge.v6.map(|v6| IpAddr::from(v6.ip()));
    [IpAddr::from(bridge.v4.ip())].into_iter().chain(v6)
}

/// Waits until packets get through, both ways: the kernel starts to send on a link some moments after
/// its other end is up, and to take what is for a new IPv6 address some moments after it was added.
/// What comes in between is lost, and sent again after a second.
fn wait_until_ready(host: &Socket, inside: &Socket, cable: &Cable) -> Result<()> {
    let is_up = |socket: &Socket, name: &str| {
        let link =
            link::by_name(socket, name).map_err(|r| r.during(format_args!("look for {name}")));
        link?
            .map(|link| link.ready)
            .ok_or_else(|| Error::new(format_args!("{name}: removed meanwhile")))
    };
    patiently(&format!("{} does not get a carrier", cable.name), || is_up(host, &cable.name))?;
    // The end inside was set up last, and so found its carrier there.
    match cable.v6 {
        Some(v6) => wait_until_local(inside, v6.ip().into()),
        None => Ok(()),
    }
}

/// Waits until what is sent to an address of this namespace is taken.
pub fn wait_until_local(socket: &Socket, address: IpAddr) -> Result<()> {
    patiently(&format!("{address} does not become usable"), || {
        let local = route::is_local(socket, address);
        local.map_err(|refusal| refusal.during(format_args!("look for {address}")))
    })
}

/// Waits until something is so, which as a rule it is within a fraction of a millisecond. Who is asked
/// too often, by many at once, does not come to it.
fn patiently(otherwise: &str, is: impl Fn() -> Result<bool>) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(30);
    const LONGEST: Duration = Duration::from_millis(20);
    /// How often the kernel's own work only gets the processor: the shortest sleep takes longer.
    const YIELDS: u32 = 8;
    let start = Instant::now();
    for attempt in 0.. {
        if is()? {
            return Ok(());
        }
        match attempt {
            ..YIELDS => sched_yield(),
            _ => sleep(LONGEST.min(Duration::from_micros(20) * 2u32.pow(attempt.min(20) - YIELDS))),
        }
        if start.elapsed() > PATIENCE {
            break;
        }
    }
    Err(Error::new(otherwise))
}

fn tell(bridge: &Bridge, cable: &Cable, held: &Held) -> Value {
    let gateways = gateways(bridge).filter(|_| !bridge.policy.internal);
    json!({
        "network": "bridge",
        "interface": INSIDE,
        "host-interface": cable.name,
        "bridge": bridge.name,
        "mac": cable.mac.to_string(),
        "mtu": bridge.mtu,
        "addresses": status::networks(cable.networks()),
        "gateways": status::addresses(gateways),
        "ports": status::ports(&held.forwards),
    })
}
