//! A synchronous netlink(7) socket for rtnetlink and nfnetlink.

use std::cell::Cell;
use std::fmt::Display;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use jc_unshare::capability::NET_ADMIN;
use jc_unshare::hints::{capable, lacking};
use jc_unshare::procfs::owns;
use jc_unshare::{Context, Error, Result, strerror};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto,
    socket_with,
};

use crate::linux::sys;

use crate::linux::message::{ACK, HEADER};
pub use crate::linux::message::{Attributes, Message};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Requests a list of objects.
pub const DUMP: u16 = 0x300;
/// The flag that makes an existing object with the name an error.
pub const EXCL: u16 = 0x200;
/// The flag that creates a missing object.
pub const CREATE: u16 = 0x400;
/// The flag that puts the object behind others of its kind.
pub const APPEND: u16 = 0x800;

/// The error of the kernel for a message.
#[derive(Debug)]
pub struct NetlinkError {
    /// The errno of the kernel.
    pub errno: Errno,
    /// The text of the extended acknowledgement.
    words: Option<String>,
    /// The index of the message in its batch.
    pub index: usize,
}

/// The result of a request to the kernel.
pub type NetlinkResult<T> = std::result::Result<T, NetlinkError>;

impl NetlinkError {
    fn local(errno: Errno) -> Self {
        Self { errno, words: None, index: 0 }
    }

    /// The error of an operation.
    pub fn during(self, operation: impl Display) -> Error {
        let words = self.words.map_or(String::new(), |words| format!(": {words}"));
        let cause = strerror(&io::Error::from(self.errno));
        let error = Error::new(format_args!("{operation}: {cause}{words}"));
        if self.errno == Errno::PERM && !capable(NET_ADMIN) {
            return error.hint(lacking("CAP_NET_ADMIN", ""));
        }
        if self.errno == Errno::PERM && owns("net").is_ok_and(|owns| !owns) {
            return error.hint(
                "this network namespace belongs to another user namespace: --network pasta works",
            );
        }
        error
    }
}

/// A socket of the network namespace in which it was opened, whichever namespace this process enters.
pub struct Socket {
    fd: OwnedFd,
    sequence: Cell<u32>,
}

impl From<Socket> for OwnedFd {
    fn from(socket: Socket) -> Self {
        socket.fd
    }
}

/// The protocols with their numbers (NETLINK_* in netlink(7)).
#[derive(Clone, Copy)]
enum Family {
    Route = 0,
    Netfilter = 12,
}

impl Socket {
    /// Opens a socket for links, addresses and routes.
    pub fn route() -> Result<Self> {
        Self::open(Family::Route)
    }

    /// Opens a socket for nf_tables. EPROTONOSUPPORT: the kernel lacks netfilter.
    pub fn netfilter() -> Result<Self> {
        Self::open(Family::Netfilter).map_err(|error| {
            error.hint("the kernel may lack netfilter: modprobe nf_tables, or --network none")
        })
    }

    fn open(family: Family) -> Result<Self> {
        const SOL_NETLINK: i32 = 270;
        const CAP_ACK: i32 = 10;
        const EXT_ACK: i32 = 11;
        const GET_STRICT_CHK: i32 = 12;
        let number = rustix::net::RawProtocol::new(family as u32);
        let protocol = number.map(Protocol::from_raw);
        let kind = (AddressFamily::NETLINK, SocketType::RAW);
        let fd = socket_with(kind.0, kind.1, SocketFlags::CLOEXEC, protocol);
        let fd = fd.op("open netlink socket")?;
        // An acknowledgement repeats only the header and has a message, and the kernel refuses unknown fields.
        for option in [CAP_ACK, EXT_ACK, GET_STRICT_CHK] {
            sys::set_socket_option(fd.as_fd(), SOL_NETLINK, option, 1)
                .op("netlink socket option")?;
        }
        Ok(Self { fd, sequence: Cell::new(1) })
    }

    /// The descriptor of the socket.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Sends one message and waits for the acknowledgement.
    pub fn ask(&self, message: Message) -> NetlinkResult<()> {
        self.batch([message])
    }

    /// Sends several messages at once. The kernel processes all of them in order, also after a failure. The first error is
    /// the result.
    pub fn batch<const N: usize>(&self, messages: [Message; N]) -> NetlinkResult<()> {
        self.send_all(messages.into())
    }

    /// Sends any number of messages like [`batch`](Self::batch). The kernel acknowledges the last one and each failure.
    pub fn send_all(&self, mut messages: Vec<Message>) -> NetlinkResult<()> {
        if let Some(last) = messages.last_mut() {
            last.add_flags(ACK);
        }
        self.send_batch(messages)
    }

    /// Sends messages like [`send_all`](Self::send_all), but only those with the flag [`ACK`] are acknowledged. At least one
    /// message has the flag.
    pub fn send_batch(&self, messages: Vec<Message>) -> NetlinkResult<()> {
        let count = messages.len() as u32;
        let awaited = messages.iter().rposition(Message::is_acknowledged).unwrap_or(0) as u32;
        let first = self.send(messages)?;
        let mut first_error = None;
        let mut buffer = vec![0; SMALL];
        loop {
            let reply = self.receive(&mut buffer)?;
            for (kind, sequence, body) in parts(reply) {
                let index = sequence.wrapping_sub(first);
                if kind != NLMSG_ERROR || index >= count {
                    continue; // the answer to an earlier batch
                }
                let outcome = acknowledged(body, index as usize);
                let failed = outcome.is_err();
                first_error = first_error.or(outcome.err());
                // If nf_tables rejects the start of a batch, no other acknowledgement follows.
                if index >= awaited || failed && index == 0 {
                    return first_error.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// Requests one object. `None`: the object does not exist.
    pub fn get<T>(
        &self,
        message: Message,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> NetlinkResult<Option<T>> {
        let first = self.send(vec![message])?;
        let mut buffer = vec![0; SMALL];
        loop {
            let reply = self.receive(&mut buffer)?;
            for (kind, sequence, body) in parts(reply) {
                match kind {
                    _ if sequence != first => {}
                    NLMSG_ERROR => {
                        return match acknowledged(body, 0) {
                            Err(e) if is_absent(e.errno) => Ok(None),
                            other => other.map(|()| None),
                        };
                    }
                    _ => return Ok(read(body)),
                }
            }
        }
    }

    /// Requests a list of objects. The result has the objects for which `read` returns a value.
    pub fn dump<T>(
        &self,
        make: impl Fn() -> Message,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> NetlinkResult<Vec<T>> {
        // The kernel marks a list that has changed during the dump. After 20 such lists the next one is the result.
        for _ in 0..20 {
            let (all, whole) = self.dump_once(make(), &read)?;
            if whole {
                return Ok(all);
            }
        }
        self.dump_once(make(), &read).map(|(all, _)| all)
    }

    fn dump_once<T>(
        &self,
        mut message: Message,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> NetlinkResult<(Vec<T>, bool)> {
        const DUMP_INTR: u16 = 0x10;
        message.add_flags(DUMP);
        let first = self.send(vec![message])?;
        let (mut all, mut whole) = (Vec::new(), true);
        let mut buffer = vec![0; BUFFER];
        loop {
            let reply = self.receive(&mut buffer)?;
            whole &= !parts_flags(reply).any(|flags| flags & DUMP_INTR != 0);
            for (kind, sequence, body) in parts(reply) {
                match kind {
                    _ if sequence != first => {}
                    NLMSG_DONE | NLMSG_ERROR => {
                        return match acknowledged(body, 0) {
                            // The table or the set does not exist.
                            Err(e) if is_absent(e.errno) => Ok((all, true)),
                            other => other.map(|()| (all, whole)),
                        };
                    }
                    _ => all.extend(read(body)),
                }
            }
        }
    }

    /// Sends messages with consecutive sequence numbers. Returns the first number.
    fn send(&self, messages: Vec<Message>) -> NetlinkResult<u32> {
        let first = self.sequence.get();
        let mut bytes = Vec::with_capacity(1024);
        for (message, sequence) in messages.into_iter().zip(first..) {
            bytes.extend(message.finish(sequence));
            self.sequence.set(sequence.wrapping_add(1));
        }
        let kernel = SocketAddrNetlink::new(0, 0);
        sendto(&self.fd, &bytes, SendFlags::empty(), &kernel).map_err(NetlinkError::local)?;
        Ok(first)
    }

    fn receive<'b>(&self, buffer: &'b mut [u8]) -> NetlinkResult<&'b [u8]> {
        loop {
            match recv(&self.fd, &mut *buffer, RecvFlags::empty()) {
                Ok((length, _)) => return Ok(&buffer[..length]),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(NetlinkError::local(errno)),
            }
        }
    }
}

/// The longest datagram of the kernel, in bytes (netlink(7)).
const BUFFER: usize = 32768;
/// An object or an acknowledgement is no longer than a page.
const SMALL: usize = 8192;

fn is_absent(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NODEV)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The messages of a datagram: type, sequence number and body.
pub fn parts(datagram: &[u8]) -> impl Iterator<Item = (u16, u32, &[u8])> {
    messages(datagram).filter_map(|message| {
        Some((u16_at(message, 4)?, u32_at(message, 8)?, message.get(HEADER..)?))
    })
}

/// The flags of the messages of a datagram.
pub fn parts_flags(datagram: &[u8]) -> impl Iterator<Item = u16> {
    messages(datagram).filter_map(|message| u16_at(message, 6))
}

fn messages(mut datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = u32_at(datagram, 0)? as usize;
        let message = datagram.get(..length).filter(|_| length >= HEADER)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// Parses the body of an NLMSG_ERROR: 0 or a negative errno, the header of the request, and attributes with the kernel's
/// message.
pub fn acknowledged(body: &[u8], index: usize) -> NetlinkResult<()> {
    const NLMSGERR_ATTR_MSG: u16 = 1;
    /// The largest errno (MAX_ERRNO of Linux' err.h).
    const ERRNOS: std::ops::RangeInclusive<i32> = 1..=4095;
    let code = u32_at(body, 0).map_or(0, |code| code as i32);
    if code == 0 {
        return Ok(());
    }
    let words = Attributes(body.get(4 + HEADER..).unwrap_or_default()).string(NLMSGERR_ATTR_MSG);
    let words = words.map(|words| words.trim_end_matches('.').to_owned());
    let errno = code.checked_neg().filter(|errno| ERRNOS.contains(errno));
    Err(NetlinkError { errno: errno.map_or(Errno::IO, Errno::from_raw_os_error), words, index })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_is_an_error_of_zero() {
        assert!(acknowledged(&[0; 20], 0).is_ok());
        let refused = [&(-1i32).to_ne_bytes()[..], &[0; 16]].concat();
        assert_eq!(acknowledged(&refused, 3).unwrap_err().errno, Errno::PERM);
        assert_eq!(acknowledged(&refused, 3).unwrap_err().index, 3);
    }

    #[test]
    fn an_error_has_the_text_of_the_kernel() {
        let words = Message::new(0, 0, &[]).string(1, "Unknown device type.").finish(0);
        let body = [&(-95i32).to_ne_bytes()[..], &[0; 16], &words[HEADER..]].concat();
        let error = acknowledged(&body, 0).unwrap_err().during("make link x");
        assert_eq!(error.to_string(), "make link x: Operation not supported: Unknown device type");
    }

    #[test]
    fn a_datagram_is_taken_apart() {
        let one = Message::new(7, 0, &[1, 2, 3, 4]).finish(9);
        let two = Message::new(8, 2, &[]).finish(10);
        let both = [one, two].concat();
        let found: Vec<_> = parts(&both).collect();
        assert_eq!(found, [(7, 9, &[1, 2, 3, 4][..]), (8, 10, &[])]);
        for cut in 0..both.len() {
            assert!(parts(&both[..cut]).count() < 2);
        }
        assert_eq!(parts(&[0; 40]).count(), 0, "a length of zero is no message");
    }
}
