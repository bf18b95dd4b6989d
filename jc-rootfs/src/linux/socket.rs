//! UNIX sockets of the caller, which get descriptors.

use std::os::fd::OwnedFd;
use std::path::Path;

use jc_unshare::{Context, Result};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// Connects to the socket of the caller, by its path on the host.
pub fn connect_to(path: &Path) -> Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let socket = socket.op("socket")?;
    let address = SocketAddrUnix::new(path).on("connect", path)?;
    connect(&socket, &address).on("connect", path)?;
    Ok(socket)
}
