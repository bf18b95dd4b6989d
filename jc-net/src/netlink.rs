//! One small synchronous rtnetlink(7) socket.

use std::os::fd::OwnedFd;

use jc_unshare::{Context, Error, Result, strerror};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const RTM_NEWLINK: u16 = 16;
const IFF_UP: u32 = 1;
/// The loopback interface is the first of every network namespace.
const LOOPBACK_INDEX: u32 = 1;

/// A socket to the routing tables of the network namespace in which it was opened.
pub struct Route(OwnedFd);

impl Route {
    /// Opens one in the present network namespace. NETLINK_ROUTE is the protocol numbered 0.
    pub fn open() -> Result<Self> {
        let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None);
        socket.op("open netlink socket").map(Self)
    }

    /// Sets the loopback interface up, which gives it 127.0.0.1 and ::1.
    pub fn loopback_up(&self) -> Result<()> {
        let mut body = vec![0; 4]; // ifi_family, padding, ifi_type
        for field in [LOOPBACK_INDEX, IFF_UP, IFF_UP] {
            body.extend(field.to_ne_bytes()); // ifi_index, ifi_flags, ifi_change
        }
        self.request(RTM_NEWLINK, &body, "set lo up")
    }

    /// Sends one request and waits for its acknowledgement.
    fn request(&self, kind: u16, body: &[u8], operation: &str) -> Result<()> {
        let message = message(kind, NLM_F_REQUEST | NLM_F_ACK, body);
        let kernel = SocketAddrNetlink::new(0, 0);
        sendto(&self.0, &message, SendFlags::empty(), &kernel).op(operation)?;
        let mut reply = [0; 4096];
        let (length, _) = recv(&self.0, &mut reply, RecvFlags::empty()).op(operation)?;
        match error_code(&reply[..length]) {
            Some(0) => Ok(()),
            Some(code) => {
                let error = std::io::Error::from_raw_os_error(-code);
                Err(Error::new(format_args!("{operation}: {}", strerror(&error))))
            }
            None => Err(Error::new(format_args!("{operation}: unexpected netlink reply"))),
        }
    }
}

/// A netlink(7) message: the header and the body.
fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    const HEADER: usize = 16;
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend(((HEADER + body.len()) as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(1u32.to_ne_bytes()); // sequence
    message.extend(0u32.to_ne_bytes()); // port: the kernel's
    message.extend(body);
    message
}

/// The error of an NLMSG_ERROR message: 0 acknowledges, negative is an errno.
fn error_code(reply: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(reply.get(4..6)?.try_into().ok()?);
    let code = i32::from_ne_bytes(reply.get(16..20)?.try_into().ok()?);
    (kind == NLMSG_ERROR).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_is_an_error_of_zero() {
        let reply = |kind: u16, code: i32| message(kind, 0, &code.to_ne_bytes());
        assert_eq!(error_code(&reply(NLMSG_ERROR, 0)), Some(0));
        assert_eq!(error_code(&reply(NLMSG_ERROR, -1)), Some(-1));
        assert_eq!(error_code(&reply(RTM_NEWLINK, 0)), None);
        assert_eq!(error_code(&[0; 8]), None);
    }
}
