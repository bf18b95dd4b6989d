//! A connection of the program: its first bytes, the dial, and the bytes of both ways.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::http::Origin;
use super::inspection::{self, Inspection};
use super::relay::{Flow, Side, Stop, TURN};
use super::rule::DNS;
use super::shared::{End, Shared, key_of};
use super::target::{Failure, Target};
use super::{address, dial, dns};

/// The longest time for the first bytes, and for a query over TCP.
const FIRST_BYTES: Duration = Duration::from_secs(10);
/// The longest time of a lookup.
const LOOKUP: Duration = Duration::from_secs(30);

/// Stages of a connection.
#[derive(Debug)]
enum State {
    /// The first bytes are inspected.
    First,
    /// The name is looked up.
    Lookup,
    /// An address is dialled; the others to try, the last first.
    Dial(Vec<IpAddr>),
    /// Bytes are moved.
    Relay,
    /// Queries are answered.
    Resolve,
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
    /// The time of the acceptance.
    pub begun: Instant,
    /// The time at which its stage must have ended.
    pub deadline: Option<Instant>,
    /// The inspection of the bytes to the host.
    pub inspection: Inspection,
    /// To the host, and from it.
    up: Flow,
    down: Flow,
}

impl Connection {
    /// A connection that has been accepted.
    pub fn new(socket: OwnedFd, target: Target, is_learning: bool) -> Self {
        let begun = Instant::now();
        Self {
            inside: Side::new(socket),
            outside: None,
            state: if target.port == DNS { State::Resolve } else { State::First },
            peer: None,
            begun,
            deadline: Some(begun + FIRST_BYTES),
            inspection: Inspection::new(target.check, is_learning),
            target,
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
        matches!(self.state, State::First | State::Resolve)
    }

    /// Bytes to the host and bytes from the host.
    pub fn moved(&self) -> (u64, u64) {
        (self.up.moved, self.down.moved)
    }

    /// Records the state of a socket that epoll(7) reports.
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

    /// Makes all steps that need no wait. Returns whether the connection has ended.
    pub fn go_on(&mut self, shared: &mut Shared, key: u64) -> Result<bool, Failure> {
        if matches!(self.state, State::First) && self.has_first_bytes(shared)? {
            self.look_up(shared, key)?;
        }
        if matches!(self.state, State::Dial(_)) {
            self.take_dial(shared, key)?;
        }
        match self.state {
            State::Relay => self.relay(shared, key),
            State::Resolve => self.resolve(shared),
            _ => Ok(false),
        }
    }

    /// Ends a connection whose stage has not ended in time.
    pub fn time_out(&mut self, shared: &mut Shared, key: u64) -> Result<bool, Failure> {
        match self.state {
            // A server may be the first to speak.
            State::First if shared.learned.is_some() => {
                self.inspection.open();
                self.go_on(shared, key)
            }
            State::First => Err(Failure::Refused("no first bytes in time")),
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
        let held = &mut self.inspection.held;
        while self.inside.readable && held.len() < most {
            let room = buffer.len().min(most - held.len());
            match retry_on_intr(|| recv(&self.inside.fd, &mut buffer[..room], RecvFlags::empty())) {
                Ok((0, _)) => return Ok(false),
                Ok((length, _)) => held.extend_from_slice(&buffer[..length]),
                Err(Errno::AGAIN) => self.inside.readable = false,
                Err(errno) => return Err(errno),
            }
        }
        Ok(true)
    }

    /// Reads and inspects more. Returns whether all bytes have passed and no more come.
    fn inspect(&mut self, shared: &mut Shared) -> Result<bool, Failure> {
        let more = self.read_more(self.inspection.most(), &mut shared.buffer[..])?;
        let name = self.target.name.as_deref().unwrap_or_default();
        let origin = Origin { name, port: self.target.port };
        self.inspection.inspect(origin, more).map_err(Failure::Refused)
    }

    /// Whether the first bytes, if there must be some, have passed.
    fn has_first_bytes(&mut self, shared: &mut Shared) -> Result<bool, Failure> {
        if !self.inspection.is_open() && self.inspect(shared)? {
            return Err(Failure::Refused("no first bytes"));
        }
        Ok(self.inspection.cleared > 0 || self.inspection.is_open())
    }

    /// Finds the addresses to dial.
    fn look_up(&mut self, shared: &mut Shared, key: u64) -> Result<(), Failure> {
        let Some(name) = self.target.name.clone() else {
            return self.dial(shared, key, vec![self.target.address]);
        };
        self.state = State::Lookup;
        self.deadline = Some(Instant::now() + LOOKUP);
        match shared.lookups.ask(&name, key) {
            Some(addresses) => self.looked_up(shared, key, &addresses),
            None => Ok(()),
        }
    }

    /// Continues with the addresses of the name. Only the addresses that a name may lead to are dialled.
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
        let candidates =
            dial::candidates(found, self.target.port, self.target.private, &shared.rules);
        if candidates.is_empty() {
            self.peer = found.first().copied();
            return Err(Failure::Refused(
                "the name leads to an address that is not public, or denied",
            ));
        }
        self.dial(shared, key, candidates)
    }

    fn dial(
        &mut self,
        shared: &mut Shared,
        key: u64,
        addresses: Vec<IpAddr>,
    ) -> Result<(), Failure> {
        self.state = State::Dial(addresses);
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
            match dial::start(SocketAddr::new(address, self.target.port), shared, key) {
                Ok(side) => {
                    let limit =
                        if addresses.is_empty() { dial::LONGEST } else { dial::LONGEST_IF_OTHERS };
                    self.outside = Some(side);
                    self.deadline = Some(Instant::now() + limit);
                    return self.learn(shared);
                }
                Err(failed) => errno = failed,
            }
        }
        Err(errno.into())
    }

    /// Continues if the address that is dialled has answered.
    fn take_dial(&mut self, shared: &mut Shared, key: u64) -> Result<(), Failure> {
        while let Some(side) = &mut self.outside {
            match dial::has_answered(side) {
                Ok(false) => break,
                Ok(true) => {
                    self.state = State::Relay;
                    self.deadline = None;
                    break;
                }
                Err(errno) => self.dial_next(shared, key, errno)?,
            }
        }
        Ok(())
    }

    /// Adds the rule that would allow the connection to those that are learned.
    fn learn(&self, shared: &mut Shared) -> Result<(), Failure> {
        let Some(learned) = &mut shared.learned else { return Ok(()) };
        let (target, check) = (&self.target, self.inspection.check);
        let is_private = self.peer.is_some_and(|peer| !address::is_public(peer));
        let (name, address) = (target.name.as_deref(), (target.address, target.port).into());
        learned.add(name, address, check, is_private).map_err(Failure::Refused)
    }

    fn relay(&mut self, shared: &mut Shared, key: u64) -> Result<bool, Failure> {
        let mut up = self.send_up(shared)?;
        if self.has_new_answer() {
            up = self.send_up(shared)?;
        }
        let Some(outside) = self.outside.as_mut() else { return Ok(true) };
        // The bytes of an answer that is not complete stay where they are.
        let down = if self.inspection.awaits_answer() {
            Stop::Waits
        } else {
            self.down.pump(outside, &mut self.inside, &mut shared.pipes)?
        };
        if up == Stop::Turn || down == Stop::Turn {
            shared.report_again(&self.inside.fd, key_of(key, End::Inside))?;
            shared.report_again(&outside.fd, key_of(key, End::Outside))?;
        }
        Ok(self.up.is_over && self.down.is_over)
    }

    /// Sends to the host the bytes that have passed, then reads more. Bytes that need no inspection move by splice(2).
    fn send_up(&mut self, shared: &mut Shared) -> Result<Stop, Failure> {
        for _ in 0..TURN {
            if !self.send_cleared()? || self.inspection.awaits_answer() {
                return Ok(Stop::Waits);
            }
            let Some(outside) = self.outside.as_mut() else { return Ok(Stop::Waits) };
            if self.inspection.is_open() {
                return Ok(self.up.pump(&mut self.inside, outside, &mut shared.pipes)?);
            }
            if self.up.is_over {
                return Ok(Stop::Waits);
            }
            let check = self.inspection.check;
            if self.inspect(shared)? {
                self.end_up()?;
            }
            if self.inspection.check != check {
                self.learn(shared)?;
            }
            if self.inspection.cleared == 0 && !self.inspection.is_open() {
                return Ok(Stop::Waits);
            }
        }
        Ok(Stop::Turn)
    }

    /// Sends the bytes that have passed. Returns whether all are sent.
    fn send_cleared(&mut self) -> Result<bool, Failure> {
        let Inspection { held, cleared, .. } = &mut self.inspection;
        let Some(outside) = self.outside.as_mut() else { return Ok(false) };
        while *cleared > 0 {
            if !outside.writable {
                return Ok(false);
            }
            match retry_on_intr(|| send(&outside.fd, &held[..*cleared], SendFlags::NOSIGNAL)) {
                Ok(sent) => {
                    held.drain(..sent);
                    *cleared -= sent;
                    self.up.moved += sent as u64;
                }
                Err(Errno::AGAIN) => outside.writable = false,
                Err(errno) => return Err(errno.into()),
            }
        }
        if held.is_empty() {
            *held = Vec::new();
        }
        Ok(true)
    }

    fn end_up(&mut self) -> Result<(), Errno> {
        self.outside.as_mut().map_or(Ok(()), |outside| self.up.end(outside))
    }

    /// Shows the first bytes of the server's answer to the inspection, if that waits for them. Returns whether they
    /// have decided something.
    fn has_new_answer(&mut self) -> bool {
        let outside = self.outside.as_mut().filter(|side| side.readable);
        let Some(outside) = outside.filter(|_| self.inspection.awaits_answer()) else {
            return false;
        };
        let mut first = [0; inspection::ANSWER];
        match retry_on_intr(|| recv(&outside.fd, &mut first[..], RecvFlags::PEEK)) {
            Err(Errno::AGAIN) => outside.readable = false,
            Ok((length, _)) if self.down.moved == 0 => {
                self.inspection.take_answer(&first[..length]);
            }
            // The pump meets the error too.
            _ => self.inspection.take_answer(&[]),
        }
        !self.inspection.awaits_answer()
    }

    /// Answers queries over TCP: each has its length in front (RFC 7766).
    fn resolve(&mut self, shared: &mut Shared) -> Result<bool, Failure> {
        let more_to_come = self.read_more(2 + dns::LONGEST, &mut shared.buffer[..])?;
        let held = &mut self.inspection.held;
        while let Some(&[high, low]) = held.first_chunk() {
            let length = usize::from(u16::from_be_bytes([high, low]));
            if length > dns::LONGEST {
                return Err(Failure::Refused("a malformed query"));
            }
            let Some(query) = held.get(2..2 + length) else { break };
            let Some(answer) = shared.answer(query) else { return Ok(true) };
            let bytes = [&(answer.len() as u16).to_be_bytes()[..], &answer].concat();
            held.drain(..2 + length);
            // A client that takes no answers asks for no more.
            if send(&self.inside.fd, &bytes, SendFlags::NOSIGNAL) != Ok(bytes.len()) {
                return Ok(true);
            }
            self.deadline = Some(Instant::now() + FIRST_BYTES);
        }
        Ok(!more_to_come)
    }
}
