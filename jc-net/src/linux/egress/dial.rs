//! The dial of an address of a host, in the namespace of this process.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, connect, getpeername, socket_with, sockopt,
};

use super::address;
use super::relay::Side;
use super::rules::Rules;
use super::shared::{End, Shared, key_of};

/// The longest time of a dial of the last address, and of an address before it.
pub const LONGEST: Duration = Duration::from_secs(30);
pub const LONGEST_IF_OTHERS: Duration = Duration::from_secs(5);

/// The addresses of a name that may be dialled, the last first.
pub fn candidates(found: &[IpAddr], port: u16, private: bool, rules: &Rules) -> Vec<IpAddr> {
    let may = |address: &&IpAddr| {
        (private || address::is_public(**address)) && !rules.denies(**address, port)
    };
    found.iter().rev().filter(may).copied().collect()
}

/// Makes a socket, and starts to connect.
pub fn start(to: SocketAddr, shared: &Shared, key: u64) -> Result<Side, Errno> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    // Bytes are passed on as they come, and not held back to fill packets.
    sockopt::set_tcp_nodelay(&socket, true)?;
    // A host that is gone for good must not hold the connection for ever.
    sockopt::set_socket_keepalive(&socket, true)?;
    match connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(errno) => return Err(errno),
    }
    shared.report(&socket, key_of(key, End::Outside))?;
    Ok(Side::new(socket))
}

/// Whether the address has answered. Error: the dial has failed.
pub fn has_answered(side: &mut Side) -> Result<bool, Errno> {
    if !side.writable || getpeername(&side.fd).is_ok() {
        return Ok(side.writable);
    }
    // An event of a socket before this one, if there is no error.
    side.writable = false;
    sockopt::socket_error(&side.fd)?.map(|()| false)
}
