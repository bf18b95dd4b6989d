//! The side of the payload: a filter from the recorder, whose listener goes back to the recorder.
//!
//! The recorder sends the filter as one message of a socket with packets, before the chain starts. The process that
//! executes the payload installs the filter as its last step, and answers with the descriptor of the listener.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use jc_unshare::{Context, Error, Result, info};
use nix::libc::{self, BPF_MAXINSNS, SECCOMP_FILTER_FLAG_NEW_LISTENER, sock_filter};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags,
    SocketType, recv, recvmsg, send, socketpair,
};
use rustix::thread::set_no_new_privs;

use super::super::socket;
use super::super::sys::notify::WAIT_KILLABLE;
use super::super::sys::seccomp_filter;

/// The bytes of an instruction in a message.
const INSTRUCTION: usize = 8;

/// The sockets of a recorder and of its payload.
pub fn sockets() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .op("socketpair")
}

/// Sends the filter to the process that executes the payload.
pub fn send_filter(socket: &OwnedFd, filter: &[sock_filter]) -> Result<()> {
    let bytes: Vec<u8> = filter
        .iter()
        .flat_map(|i| {
            let [c0, c1] = i.code.to_ne_bytes();
            let [k0, k1, k2, k3] = i.k.to_ne_bytes();
            [c0, c1, i.jt, i.jf, k0, k1, k2, k3]
        })
        .collect();
    send(socket, &bytes, SendFlags::NOSIGNAL).op("send the filter").map(drop)
}

/// Receives the listener. `None`: the other end is closed.
pub fn receive_listener(socket: &OwnedFd) -> Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    match recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, flags) {
        // The other end was closed before the filter was read.
        Err(Errno::CONNRESET) => return Ok(None),
        received => received.op("receive the listener")?,
    };
    Ok(control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    }))
}

/// The filter of a recorder, before its installation.
pub struct Attachment {
    socket: OwnedFd,
    filter: Vec<sock_filter>,
}

impl Attachment {
    /// The filter for a child of the recorder.
    pub fn new(socket: OwnedFd, filter: Vec<sock_filter>) -> Self {
        Self { socket, filter }
    }

    /// Takes over the socket of a recorder, and receives the filter. Usage errors: a standard stream, or a descriptor
    /// that is not open.
    pub fn open(number: u32) -> Result<Self> {
        let socket = info::inherit_fd(number, "--trace-fd")?;
        let mut bytes = vec![0; BPF_MAXINSNS as usize * INSTRUCTION];
        // The recorder has sent the filter before the chain has started.
        let (length, _) =
            recv(&socket, &mut bytes, RecvFlags::DONTWAIT).op("receive the filter of jc-trace")?;
        let filter = bytes[..length].chunks_exact(INSTRUCTION).map(|i| sock_filter {
            code: u16::from_ne_bytes([i[0], i[1]]),
            jt: i[2],
            jf: i[3],
            k: u32::from_ne_bytes([i[4], i[5], i[6], i[7]]),
        });
        let filter: Vec<_> = filter.collect();
        if filter.is_empty() {
            return Err(Error::new(format_args!(
                "--trace-fd {number}: no jc-trace at the other end"
            )));
        }
        Ok(Self { socket, filter })
    }

    /// Installs the filter, and sends the listener to the recorder. Between these two calls this process makes no other
    /// one, since nobody could answer its notification. EACCES: this process has neither CAP_SYS_ADMIN nor no_new_privs.
    pub fn install(&self) -> Result<()> {
        let flags = u64::from(SECCOMP_FILTER_FLAG_NEW_LISTENER as u32);
        let listener = match seccomp_filter(&self.filter, flags | WAIT_KILLABLE) {
            // Before Linux 5.19.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                seccomp_filter(&self.filter, flags)
            }
            installed => installed,
        };
        match listener.op("seccomp").map_err(hint)? {
            Some(listener) => socket::send(&self.socket, &listener, b"l"),
            None => Err(Error::new("seccomp: no listener")),
        }
    }

    /// Installs the filter, after no_new_privs if this process has no CAP_SYS_ADMIN.
    pub fn install_without_privilege(&self) -> Result<()> {
        match self.install() {
            Err(error) if error.errno() == Some(libc::EACCES) => {
                set_no_new_privs(true).op("PR_SET_NO_NEW_PRIVS")?;
                self.install()
            }
            installed => installed,
        }
    }

    /// The number of the socket.
    pub fn number(socket: &OwnedFd) -> u64 {
        use std::os::fd::AsRawFd;
        socket.as_fd().as_raw_fd() as u64
    }
}

fn hint(error: Error) -> Error {
    match error.errno() {
        Some(libc::EACCES) => error.hint("a filter needs CAP_SYS_ADMIN or --no-new-privs"),
        Some(libc::EBUSY) => {
            error.hint("a filter of the caller has a listener already, as under another recorder")
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_filter_arrives_as_it_was_sent() {
        let (recorder, payload) = sockets().unwrap();
        let filter = [
            sock_filter { code: 0x20, jt: 1, jf: 2, k: 0x0102_0304 },
            sock_filter { code: 6, jt: 0, jf: 0, k: 0x7FFF_0000 },
        ];
        send_filter(&recorder, &filter).unwrap();
        let number = payload.as_raw_fd() as u32;
        std::mem::forget(payload);
        let received = Attachment::open(number).unwrap();
        let fields = |i: &sock_filter| (i.code, i.jt, i.jf, i.k);
        assert_eq!(
            received.filter.iter().map(fields).collect::<Vec<_>>(),
            filter.map(|i| fields(&i))
        );
        drop(received);
        assert!(receive_listener(&recorder).unwrap().is_none());
    }

    #[test]
    fn a_socket_without_a_recorder_is_an_error() {
        let (recorder, payload) = sockets().unwrap();
        let number = payload.as_raw_fd() as u32;
        std::mem::forget(payload);
        assert!(Attachment::open(number).is_err());
        drop(recorder);
    }
}
