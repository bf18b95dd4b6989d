//! UNIX sockets of the caller, which get descriptors (unix(7), SCM_RIGHTS).

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use jc_unshare::{Context, Error, Result};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, connect, sendmsg, socket_with,
};

/// Connects to the socket of the caller, by its path on the host.
pub fn connect_to(path: &Path) -> Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let socket = socket.op("socket")?;
    let address = SocketAddrUnix::new(path).on("connect", path)?;
    connect(&socket, &address).on("connect", path)?;
    Ok(socket)
}

/// Sends one message with a descriptor and a text.
pub fn send(socket: &OwnedFd, fd: &OwnedFd, text: &[u8]) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd.as_fd()];
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Error::new("sendmsg: no space for a descriptor"));
    }
    let sent = sendmsg(socket, &[IoSlice::new(text)], &mut control, SendFlags::NOSIGNAL);
    match sent.op("sendmsg")? {
        length if length == text.len() => Ok(()),
        _ => Err(Error::new("sendmsg: the socket took a part of the message")),
    }
}
