//! Waits until the kernel has set up links and addresses.

use std::net::{IpAddr, Ipv6Addr};
use std::thread::sleep;
use std::time::{Duration, Instant};

use jc_unshare::{Error, Result};
use rustix::thread::sched_yield;

use crate::linux::netlink::Socket;
use crate::linux::{link, route};

/// Waits until packets pass a veth pair in both directions. The kernel starts to send on a link a little after its peer
/// is up, and to receive packets for a new IPv6 address a little after the address is added. Packets in between are
/// lost, and TCP sends them again after a second.
pub fn wait_until_ready(
    host: &Socket,
    inside: &Socket,
    name: &str,
    v6: Option<Ipv6Addr>,
) -> Result<()> {
    let is_up = |socket: &Socket, name: &str| {
        let link =
            link::by_name(socket, name).map_err(|r| r.during(format_args!("look for {name}")));
        link?
            .map(|link| link.ready)
            .ok_or_else(|| Error::new(format_args!("{name}: removed meanwhile")))
    };
    poll_until(&format!("{name} does not get a carrier"), || is_up(host, name))?;
    // The end in the container was set up last and has had a carrier since then.
    match v6 {
        Some(v6) => wait_until_local(inside, v6.into()),
        None => Ok(()),
    }
}

/// Waits until the namespace of the socket receives packets for an address.
pub fn wait_until_local(socket: &Socket, address: IpAddr) -> Result<()> {
    poll_until(&format!("{address} does not become usable"), || {
        let local = route::is_local(socket, address);
        local.map_err(|error| error.during(format_args!("look for {address}")))
    })
}

/// Calls `condition` until the result is true, which usually takes a fraction of a millisecond. The pauses grow, since
/// frequent calls of many processes would slow down the kernel's own work. After 30 seconds `message` is the error.
fn poll_until(message: &str, condition: impl Fn() -> Result<bool>) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(30);
    const LONGEST: Duration = Duration::from_millis(20);
    /// The first pauses only yield the processor, since the shortest sleep takes longer than the kernel's work.
    const YIELDS: u32 = 8;
    let start = Instant::now();
    for attempt in 0.. {
        if condition()? {
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
    Err(Error::new(message))
}
