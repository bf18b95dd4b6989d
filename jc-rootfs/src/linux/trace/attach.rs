//! The side of the payload: the filter of a recorder, whose listener goes back to the recorder.
//!
//! The recorder sends the calls to watch as one message of a socket with packets, before the chain starts. The process
//! that executes the payload installs the filter as its last step, and answers with the descriptor of the listener.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use jc_unshare::{Context, Error, Result, info, rights};
use nix::libc::{self, SECCOMP_FILTER_FLAG_NEW_LISTENER, sock_filter};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::thread::set_no_new_privs;

use super::super::sys::notify::WAIT_KILLABLE;
use super::super::sys::seccomp_filter;
use super::filter::{Watched, filter};

/// Sends the calls to watch to the process that executes the payload.
pub fn send_watched(socket: &OwnedFd, watched: Watched) -> Result<()> {
    let message = [u8::from(watched.calls), u8::from(watched.links)];
    send(socket, &message, SendFlags::NOSIGNAL).op("send to the chain").map(drop)
}

/// Receives the listener. `None`: the other end is closed.
pub fn receive_listener(socket: &OwnedFd) -> Result<Option<OwnedFd>> {
    Ok(rights::receive(socket, RecvFlags::DONTWAIT)?.pop())
}

/// The filter of a recorder, before its installation.
pub struct Attachment {
    socket: OwnedFd,
    filter: Vec<sock_filter>,
}

impl Attachment {
    /// The filter for a child of the recorder.
    pub fn new(socket: OwnedFd, watched: Watched) -> Result<Self> {
        let filter = filter(watched, socket.as_raw_fd() as u64)?;
        Ok(Self { socket, filter })
    }

    /// Takes over the socket of a recorder, and receives the calls to watch. Usage errors: a standard stream, or a
    /// descriptor that is not open.
    pub fn open(number: u32) -> Result<Self> {
        let socket = info::inherit_fd(number, "--trace-fd")?;
        // The recorder has sent the message before the chain has started.
        let mut message = [0; 2];
        match recv(&socket, &mut message, RecvFlags::DONTWAIT).op("receive from jc-trace")? {
            (2, _) => Self::new(socket, Watched { calls: message[0] == 1, links: message[1] == 1 }),
            _ => Err(Error::new(format_args!("--trace-fd {number}: no jc-trace at the other end"))),
        }
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
            Some(listener) => rights::send(&self.socket, &[listener.as_fd()], b"l"),
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
    use super::*;

    fn opened(socket: OwnedFd) -> Result<Attachment> {
        let number = socket.as_raw_fd() as u32;
        std::mem::forget(socket);
        Attachment::open(number)
    }

    #[test]
    fn a_filter_is_that_of_the_calls_to_watch() {
        let (recorder, payload) = rights::sockets().unwrap();
        let watched = Watched { calls: false, links: true };
        send_watched(&recorder, watched).unwrap();
        let number = payload.as_raw_fd() as u64;
        let received = opened(payload).unwrap();
        let fields = |i: &sock_filter| (i.code, i.jt, i.jf, i.k);
        let expected = filter(watched, number).unwrap();
        assert!(received.filter.iter().map(fields).eq(expected.iter().map(fields)));
        drop(received);
        assert!(receive_listener(&recorder).unwrap().is_none());
    }

    #[test]
    fn a_socket_without_a_recorder_is_an_error() {
        let (recorder, payload) = rights::sockets().unwrap();
        assert!(opened(payload).is_err());
        drop(recorder);
    }
}
