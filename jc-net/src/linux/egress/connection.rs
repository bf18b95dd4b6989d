//! A connection of the program: its first bytes, the dial, and the bytes of both ways.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, getpeername, recv, send,
    socket_with, sockopt,
};

use super::address;
use super::dns;
use super::http::{self, Origin, Requests};
use super::name;
use super::proxy::{Shared, key_of};
use super::relay::{Flow, Side, Stop, TURN};
use super::rule::{Check, DNS};
use super::tls::{self, Answer, Hello, Progress};

/// How long the first bytes may take, and a query over TCP.
const FIRST_BYTES: Duration = Duration::from_secs(10);
/// How long a lookup may take.
const LOOKUP: Duration = Duration::from_secs(30);
/// How long an address may take to answer, and if there are others to try.
const DIAL: Duration = Duration::from_secs(30);
const DIAL_IF_OTHERS: Duration = Duration::from_secs(5);

/// The two sockets of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// The socket of the program.
    Inside,
    /// The socket of the host.
    Outside,
}

/// Stages of a connection.
#[derive(Debug)]
enum State {
    /// Enough of the first bytes; of TLS, so many.
    First(usize),
    /// The addresses of the name.
    Lookup,
    /// An answer of an address; the others to try, the last first.
    Dial(Vec<IpAddr>),
    /// Bytes, to move them.
    Relay,
    /// Queries.
    Resolve,
}

/// Where the program wants to go.
#[derive(Debug)]
pub struct Target {
    /// The address that the program has used.
    pub address: IpAddr,
    /// The port that the program has used.
    pub port: u16,
    /// The name, if the address is a synthetic one.
    pub name: Option<Rc<str>>,
    /// The text of the rule that allows it.
    pub rule: String,
    /// The form that the first bytes must have.
    pub check: Check,
    /// Whether the name may lead to an address that is not public.
    pub private: bool,
}

/// Why a connection ends before its time.
#[derive(Debug)]
pub enum Failure {
    /// No rule allows it, or its first bytes are others than the rule wants.
    Refused(&'static str),
    /// The connection is allowed, and a lookup, a dial or a socket has failed.
    Broken(String),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Broken(jc_unshare::strerror(&errno.into()))
    }
}

/// A connection of the program, from its acceptance to its end.
#[derive(Debug)]
pub struct Connection {
    inside: Side,
    outside: Option<Side>,
    state: State,
    /// The wanted address, and the rule.
    pub target: Target,
    /// The address that was dialled last.
    pub peer: Option<IpAddr>,
    /// The SNI of its ClientHello.
    pub sni: Option<String>,
    /// The time of the acceptance.
    pub begun: Instant,
    /// The time at which its stage must have ended.
    pub deadline: Option<Instant>,
    /// Bytes from the program that are still to be sent, and how many of them may be.
    held: Vec<u8>,
    cleared: usize,
    requests: Option<Requests>,
    /// The answer to the ClientHello of TLS. Until it is known, no further byte of the program is sent.
    answer: Answer,
    /// To the host, and from it.
    up: Flow,
    down: Flow,
}

impl Connection {
    /// A connection that has been accepted.
    pub fn new(socket: OwnedFd, target: Target) -> Self {
        let state = match target.check {
            _ if target.port == DNS => State::Resolve,
            _ => State::First(1),
        };
        let requests = (target.check == Check::Http).then(Requests::new);
        let is_tls = matches!(target.check, Check::Tls | Check::TlsEch);
        let answer = if is_tls { Answer::Unknown } else { Answer::Other };
        let begun = Instant::now();
        Self {
            inside: Side::new(socket),
            outside: None,
            state,
            target,
            peer: None,
            sni: None,
            begun,
            deadline: Some(begun + FIRST_BYTES),
            held: Vec::new(),
            cleared: 0,
            requests,
            answer,
            up: Flow::default(),
            down: Flow::default(),
        }
    }

    /// The socket of the program.
    pub fn inside(&self) -> &OwnedFd {
        &self.inside.fd
    }

    /// Whether the first bytes are still to come.
    pub fn is_new(&self) -> bool {
        matches!(self.state, State::First(_) | State::Resolve)
    }

    /// Bytes to the host and bytes from the host.
    pub fn moved(&self) -> (u64, u64) {
        (self.up.moved, self.down.moved)
    }

    /// Takes what epoll(7) says of a socket.
    pub fn note(&mut self, end: End, flags: epoll::EventFlags) {
        let broken = flags.intersects(epoll::EventFlags::ERR | epoll::EventFlags::HUP);
        let side = match end {
            End::Inside => Some(&mut self.inside),
            End::Outside => self.outside.as_mut(),
        };
        if let Some(side) = side {
            side.readable |= broken || flags.contains(epoll::EventFlags::IN);
            side.writable |= broken || flags.contains(epoll::EventFlags::OUT);
        }
    }

    /// Goes on as far as possible. Returns whether the connection has come to its end.
    pub fn go_on(&mut self, shared: &mut Shared, key: u64) -> Result<bool, Failure> {
        if matches!(self.state, State::First(_)) && self.has_first_bytes(shared)? {
            self.look_up(shared, key)?;
        }
        if matches!(self.state, State::Dial(_)) {
            self.answer_of_dial(shared, key)?;
        }
        match self.state {
            State::Relay => self.relay(shared, key),
            State::Resolve => self.resolve(shared),
            _ => Ok(false),
        }
    }

    /// Ends a connection whose state has not changed in time.
    pub fn time_out(&mut self, shared: &mut Shared, key: u64) -> Result<bool, Failure> {
        match self.state {
            State::First(_) => Err(Failure::Refused("no first bytes in time")),
            State::Lookup => Err(Failure::Broken("no answer about the name".to_owned())),
            State::Dial(_) => {
                self.dial_next(shared, key, Errno::TIMEDOUT)?;
                self.go_on(shared, key)
            }
            State::Relay | State::Resolve => Ok(true),
        }
    }

    /// Reads more of the program's bytes. Returns false at their end.
    fn read_more(&mut self, most: usize, buffer: &mut [u8]) -> Result<bool, Errno> {
        while self.inside.readable && self.held.len() < most {
            let room = buffer.len().min(most - self.held.len());
            match retry_on_intr(|| recv(&self.inside.fd, &mut buffer[..room], RecvFlags::empty())) {
                Ok((0, _)) => return Ok(false),
                Ok((length, _)) => self.held.extend_from_slice(&buffer[..length]),
                Err(Errno::AGAIN) => self.inside.readable = false,
                Err(errno) => return Err(errno),
            }
        }
        Ok(true)
    }

    /// Whether there are enough first bytes, and they are as the rule wants them.
    fn has_first_bytes(&mut self, shared: &mut Shared) -> Result<bool, Failure> {
        let most = match self.target.check {
            Check::Tcp => return Ok(true),
            Check::Http => http::LONGEST,
            Check::Tls | Check::TlsEch => tls::LONGEST,
        };
        let more_to_come = self.read_more(most, &mut shared.buffer[..])?;
        let is_complete = match &mut self.requests {
            Some(requests) => {
                let name = self.target.name.as_deref().unwrap_or_default();
                let origin = Origin { name, port: self.target.port };
                self.cleared = requests.pass(&self.held, origin).map_err(Failure::Refused)?;
                self.cleared > 0
            }
            None => self.has_hello()?,
        };
        match is_complete || more_to_come {
            true => Ok(is_complete),
            false => Err(Failure::Refused("no first bytes")),
        }
    }

    fn has_hello(&mut self) -> Result<bool, Failure> {
        let State::First(needed) = self.state else { return Ok(true) };
        if self.held.len() < needed {
            return Ok(false);
        }
        match tls::read(&self.held).map_err(Failure::Refused)? {
            Progress::Needs(needed) => {
                self.state = State::First(needed);
                Ok(false)
            }
            Progress::Hello(hello) => self.check_hello(hello).map(|()| true),
        }
    }

    fn check_hello(&mut self, hello: Hello) -> Result<(), Failure> {
        let sni = hello.name.ok_or(Failure::Refused("no SNI"))?;
        self.sni = Some(String::from_utf8_lossy(&sni).into_owned());
        if name::from_wire(&sni).as_deref() != self.target.name.as_deref() {
            return Err(Failure::Refused("another SNI"));
        }
        if hello.has_ech && self.target.check != Check::TlsEch {
            return Err(Failure::Refused("encrypted_client_hello"));
        }
        Ok(())
    }

    /// Finds the addresses to dial.
    fn look_up(&mut self, shared: &mut Shared, key: u64) -> Result<(), Failure> {
        if self.requests.is_none() {
            self.cleared = self.held.len();
        }
        let Some(name) = self.target.name.clone() else {
            return self.dial(shared, key, &[self.target.address]);
        };
        self.state = State::Lookup;
        self.deadline = Some(Instant::now() + LOOKUP);
        match shared.lookups.ask(&name, key) {
            Some(addresses) => self.looked_up(shared, key, &addresses),
            None => Ok(()),
        }
    }

    /// Takes the addresses of the name, of which only those are dialled that a name may lead to.
    pub fn looked_up(
        &mut self,
        shared: &mut Shared,
        key: u64,
        found: &[IpAddr],
    ) -> Result<(), Failure> {
        if !matches!(self.state, State::Lookup) {
            return Ok(());
        }
        if found.is_empty() {
            return Err(Failure::Broken("the name has no address".to_owned()));
        }
        let port = self.target.port;
        let may = |address: &IpAddr| {
            (self.target.private || address::is_public(*address))
                && !shared.rules.denies(*address, port)
        };
        let mut addresses: Vec<IpAddr> = found.iter().copied().filter(may).collect();
        if addresses.is_empty() {
            self.peer = found.first().copied();
            return Err(Failure::Refused(
                "the name leads to an address that is not public, or denied",
            ));
        }
        addresses.reverse();
        self.dial(shared, key, &addresses)
    }

    fn dial(&mut self, shared: &mut Shared, key: u64, addresses: &[IpAddr]) -> Result<(), Failure> {
        self.state = State::Dial(addresses.to_vec());
        self.dial_next(shared, key, Errno::HOSTUNREACH)
    }

    /// Dials the next address. Error: there is none, and this errno is that of the last.
    fn dial_next(
        &mut self,
        shared: &mut Shared,
        key: u64,
        mut errno: Errno,
    ) -> Result<(), Failure> {
        let State::Dial(addresses) = &mut self.state else { return Ok(()) };
        while let Some(address) = addresses.pop() {
            self.peer = Some(address);
            match start_dial(SocketAddr::new(address, self.target.port), shared, key) {
                Ok(socket) => {
                    self.outside = Some(Side::new(socket));
                    let limit = if addresses.is_empty() { DIAL } else { DIAL_IF_OTHERS };
                    self.deadline = Some(Instant::now() + limit);
                    return Ok(());
                }
                Err(failed) => errno = failed,
            }
        }
        Err(errno.into())
    }

    /// Sees whether the address that is dialled has answered.
    fn answer_of_dial(&mut self, shared: &mut Shared, key: u64) -> Result<(), Failure> {
        while let Some(side) = self.outside.as_mut().filter(|side| side.writable) {
            match sockopt::socket_error(&side.fd)? {
                Err(errno) => self.dial_next(shared, key, errno)?,
                // An event of a socket before this one.
                Ok(()) if getpeername(&side.fd).is_err() => side.writable = false,
                Ok(()) => {
                    // Bytes are passed on as they come, and not held back to fill packets.
                    sockopt::set_tcp_nodelay(&side.fd, true)?;
                    sockopt::set_tcp_nodelay(&self.inside.fd, true)?;
                    self.state = State::Relay;
                    self.deadline = None;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn relay(&mut self, shared: &mut Shared, key: u64) -> Result<bool, Failure> {
        let mut up = self.send_up(shared)?;
        if self.has_switched()? || self.has_answered() {
            up = self.send_up(shared)?;
        }
        let Some(outside) = self.outside.as_mut() else { return Ok(true) };
        // The bytes of an answer that is not known yet stay where they are.
        let down = match self.answer {
            Answer::Unknown => Stop::Waits,
            _ => self.down.pump(outside, &mut self.inside, &mut shared.pipes)?,
        };
        if up == Stop::Turn || down == Stop::Turn {
            shared.report_again(&self.inside.fd, key_of(key, End::Inside))?;
            shared.report_again(&outside.fd, key_of(key, End::Outside))?;
        }
        Ok(self.up.is_over && self.down.is_over)
    }

    /// Sends to the host what is held, then what comes: HTTP by way of its check, all else by splice(2).
    fn send_up(&mut self, shared: &mut Shared) -> Result<Stop, Failure> {
        for _ in 0..TURN {
            let Some(outside) = self.outside.as_mut() else { return Ok(Stop::Waits) };
            while self.cleared > 0 {
                if !outside.writable {
                    return Ok(Stop::Waits);
                }
                let bytes = &self.held[..self.cleared];
                match retry_on_intr(|| send(&outside.fd, bytes, SendFlags::NOSIGNAL)) {
                    Ok(sent) => {
                        self.held.drain(..sent);
                        self.cleared -= sent;
                        self.up.moved += sent as u64;
                    }
                    Err(Errno::AGAIN) => outside.writable = false,
                    Err(errno) => return Err(errno.into()),
                }
            }
            if self.answer == Answer::Unknown
                || self.answer == Answer::Retry && !self.has_second_hello(shared)?
            {
                return Ok(Stop::Waits);
            }
            let Some(outside) = self.outside.as_mut() else { return Ok(Stop::Waits) };
            if self.cleared == 0 && self.requests.is_none() {
                self.held = Vec::new();
                return Ok(self.up.pump(&mut self.inside, outside, &mut shared.pipes)?);
            }
            if self.requests.is_some() && !self.check_more(shared)? {
                return Ok(Stop::Waits);
            }
        }
        Ok(Stop::Turn)
    }

    /// Whether the server has just answered the ClientHello.
    fn has_answered(&mut self) -> bool {
        let Some(outside) = self.outside.as_mut().filter(|side| side.readable) else {
            return false;
        };
        if self.answer != Answer::Unknown || self.cleared > 0 {
            return false;
        }
        let mut first = [0; tls::ANSWER];
        match retry_on_intr(|| recv(&outside.fd, &mut first[..], RecvFlags::PEEK)) {
            // At the end there is no more to come.
            Ok((0, _)) => self.answer = Answer::Other,
            Ok((length, _)) => self.answer = tls::answer(&first[..length]),
            Err(Errno::AGAIN) => outside.readable = false,
            // The pump meets the error too.
            Err(_) => self.answer = Answer::Other,
        }
        self.answer != Answer::Unknown
    }

    /// Whether the second ClientHello, after a HelloRetryRequest, has come, with the same name.
    fn has_second_hello(&mut self, shared: &mut Shared) -> Result<bool, Failure> {
        let more_to_come = self.read_more(tls::LONGEST, &mut shared.buffer[..])?;
        match tls::read_second(&self.held).map_err(Failure::Refused)? {
            Progress::Needs(_) if more_to_come => return Ok(false),
            Progress::Needs(_) => return Err(Failure::Refused("no second ClientHello")),
            Progress::Hello(hello) => self.check_hello(hello)?,
        }
        self.cleared = self.held.len();
        self.answer = Answer::Other;
        Ok(true)
    }

    /// Reads and checks more of HTTP. Returns whether there is something to send.
    fn check_more(&mut self, shared: &mut Shared) -> Result<bool, Failure> {
        if self.up.is_over {
            return Ok(false);
        }
        let more_to_come = self.read_more(http::LONGEST, &mut shared.buffer[..])?;
        let (Some(requests), Some(outside)) = (&mut self.requests, &mut self.outside) else {
            return Ok(false);
        };
        let name = self.target.name.as_deref().unwrap_or_default();
        let origin = Origin { name, port: self.target.port };
        self.cleared = requests.pass(&self.held, origin).map_err(Failure::Refused)?;
        if self.cleared == 0 && !more_to_come {
            self.up.end(outside)?;
        }
        if self.held.is_empty() {
            self.held = Vec::new();
        }
        Ok(self.cleared > 0)
    }

    /// Whether the server has just switched to WebSocket, by the first bytes of its answer. If not, no further
    /// byte of the program passes.
    fn has_switched(&mut self) -> Result<bool, Failure> {
        let Some(outside) = self.outside.as_mut().filter(|side| side.readable) else {
            return Ok(false);
        };
        let Some(requests) = self.requests.as_mut().filter(|requests| requests.is_switching())
        else {
            return Ok(false);
        };
        let mut first = [0; http::STATUS_LINE];
        let peek = || recv(&outside.fd, &mut first[..], RecvFlags::PEEK);
        match retry_on_intr(peek) {
            Ok((length, _)) if self.down.moved == 0 => {
                Ok(requests.answered(&first[..length]).is_ok())
            }
            _ => Ok(false),
        }
    }

    /// Answers queries over TCP: each has its length in front (RFC 7766).
    fn resolve(&mut self, shared: &mut Shared) -> Result<bool, Failure> {
        let more_to_come = self.read_more(2 + dns::LONGEST, &mut shared.buffer[..])?;
        while let Some(&[high, low]) = self.held.first_chunk() {
            let length = usize::from(u16::from_be_bytes([high, low]));
            if length > dns::LONGEST {
                return Err(Failure::Refused("a malformed query"));
            }
            let Some(query) = self.held.get(2..2 + length) else { break };
            let Some(answer) = shared.answer(query) else { return Ok(true) };
            let length = (answer.len() as u16).to_be_bytes();
            let bytes = [&length[..], &answer].concat();
            self.held.drain(..2 + usize::from(u16::from_be_bytes([high, low])));
            // A client that takes no answers asks for no more.
            if send(&self.inside.fd, &bytes, SendFlags::NOSIGNAL) != Ok(bytes.len()) {
                return Ok(true);
            }
            self.deadline = Some(Instant::now() + FIRST_BYTES);
        }
        Ok(!more_to_come)
    }
}

/// Makes a socket in the namespace of this process, and starts to connect.
fn start_dial(to: SocketAddr, shared: &Shared, key: u64) -> Result<OwnedFd, Errno> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    match connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(errno) => return Err(errno),
    }
    // A host that is gone for good must not hold the connection for ever.
    sockopt::set_socket_keepalive(&socket, true)?;
    shared.report(&socket, key_of(key, End::Outside))?;
    Ok(socket)
}
