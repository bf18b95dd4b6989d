//! Descriptors in messages of UNIX sockets (unix(7), SCM_RIGHTS).

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};

use crate::error::{Context, Error, Result};

/// The most descriptors of a message.
const MOST: usize = 8;

/// Makes two connected sockets, which keep the bounds of messages.
pub fn sockets() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .op("socketpair")
}

/// Sends one message with descriptors and a text, which is not empty. EPIPE: the other end is closed.
pub fn send(socket: impl AsFd, fds: &[BorrowedFd<'_>], text: &[u8]) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Error::new("sendmsg: too many descriptors"));
    }
    let sent = sendmsg(socket, &[IoSlice::new(text)], &mut control, SendFlags::NOSIGNAL);
    match sent.op("sendmsg")? {
        length if length == text.len() => Ok(()),
        _ => Err(Error::new("sendmsg: the socket took a part of the message")),
    }
}

/// Receives the descriptors of one message, and discards its text, of 64 bytes at most. No descriptor: the other end is
/// closed, or has sent none. EAGAIN: no message is there, and `flags` has MSG_DONTWAIT.
pub fn receive(socket: impl AsFd, flags: RecvFlags) -> Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut text = [0; 64];
    let buffers = &mut [IoSliceMut::new(&mut text)];
    let received = match recvmsg(socket, buffers, &mut control, flags | RecvFlags::CMSG_CLOEXEC) {
        // The other end was closed with messages that it had not read.
        Err(Errno::CONNRESET) => return Ok(Vec::new()),
        received => received.op("recvmsg")?,
    };
    // The kernel drops descriptors for which this process has no number.
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(Error::new("recvmsg: Too many open files"));
    }
    let fds = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    Ok(fds.flatten().collect())
}
