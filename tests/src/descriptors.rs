//! Descriptors that a program sends through a socket.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// Receives a message of at most 4096 bytes with a descriptor.
pub fn receive(stream: &UnixStream) -> (Vec<u8>, OwnedFd) {
    let mut text = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [IoSliceMut::new(&mut text)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let length = recvmsg(stream, &mut buffers, &mut control, flags).unwrap().bytes;
    let message = control.drain().next().unwrap();
    let RecvAncillaryMessage::ScmRights(mut fds) = message else { panic!("no descriptor") };
    (text[..length].to_vec(), fds.next().unwrap())
}
