//! The proxy: accepts the connections of the program, and the queries, in one thread by epoll(7).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use jc_unshare::supervise::{Poller, readable};
use jc_unshare::{Context, Error, Result};
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, epoll};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    RecvFlags, SendFlags, SocketFlags, accept_with, getsockname, recvfrom, sendto, sockopt,
};

use super::connection::Connection;
use super::inside::Sockets;
use super::learned::Learned;
use super::log::{Entry, Log};
use super::rule::DNS;
use super::rules::Rules;
use super::shared::{End, Shared, key_of};
use super::target::{Failure, Target};
use super::timer::Timer;
use super::{dns, packets};
use crate::EGRESS;

/// The most connections that wait for their first bytes, each with some bytes in memory.
const MOST_NEW: usize = 1024;
/// The most events of one epoll_wait(2).
const EVENTS: usize = 128;
/// The most connections or queries of a socket before other sockets have their turn.
const AT_A_TIME: usize = 64;
/// The rounds in which rejected packets are read at the end: more than their socket has room for.
const LAST_ROUNDS: usize = 64;

/// Numbers that epoll(7) gives for descriptors that are no connections.
const LISTENERS: u64 = 1 << 63;
const RESOLVERS: u64 = LISTENERS | 1 << 32;
const LOOKUPS: u64 = LISTENERS | 2 << 32;
const TIMER: u64 = LISTENERS | 3 << 32;
const PACKETS: u64 = LISTENERS | 4 << 32;
const SIGNALS: u64 = LISTENERS | 5 << 32;

/// The proxy: its sockets inside, and its connections.
pub struct Proxy {
    shared: Shared,
    sockets: Sockets,
    addresses: Vec<SocketAddr>,
    /// Connections, each under a number that is never used again.
    connections: HashMap<u64, Box<Connection>>,
    next: u64,
    /// The most connections at a time.
    most: usize,
    /// The number of connections that wait for their first bytes.
    new: usize,
    is_paused: bool,
    timer: Timer,
    /// The number of rejected packets that had no room in their socket.
    dropped: u32,
}

impl Proxy {
    /// A proxy that accepts from these sockets. `most` connections have descriptors enough.
    pub fn new(
        sockets: Sockets,
        rules: Rules,
        learned: Option<Learned>,
        log: Log,
        most: usize,
    ) -> Result<Self> {
        let timer = Timer::new()?;
        let shared = Shared::new(rules, learned, log, sockets.listeners.len() > 1)?;
        let address = |socket: &OwnedFd| {
            let name = getsockname(socket).and_then(SocketAddr::try_from);
            name.op("getsockname")
        };
        for (sockets, base) in [(&sockets.listeners, LISTENERS), (&sockets.resolvers, RESOLVERS)] {
            for (socket, data) in sockets.iter().zip(base..) {
                shared.watch(socket, data)?;
            }
        }
        sockets.packets.iter().try_for_each(|socket| shared.watch(socket, PACKETS))?;
        shared.watch(shared.lookups.bell(), LOOKUPS)?;
        shared.watch(timer.as_fd(), TIMER)?;
        Ok(Self {
            addresses: sockets.listeners.iter().map(address).collect::<Result<_>>()?,
            shared,
            sockets,
            connections: HashMap::new(),
            next: 0,
            most,
            new: 0,
            is_paused: false,
            timer,
            dropped: 0,
        })
    }

    /// Adds the descriptor of signals: while it can be read, the caller of the proxy has its turn.
    pub fn watch_signals(&self, signals: BorrowedFd<'_>) -> Result<()> {
        self.shared.watch(signals, SIGNALS)
    }

    /// The descriptors without which the proxy cannot go on.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let shared = &self.shared;
        let mut all = vec![shared.epoll.as_fd(), shared.lookups.bell(), self.timer.as_fd()];
        all.extend(self.sockets.listeners.iter().chain(&self.sockets.resolvers).map(AsFd::as_fd));
        all.extend(self.sockets.packets.as_ref().map(AsFd::as_fd));
        all.extend(shared.log.descriptor());
        all.extend(shared.learned.as_ref().map(Learned::descriptor));
        all
    }

    /// Ends all connections, which the log then has, and writes the rules that were learned.
    pub fn finish(mut self) -> Result<()> {
        for connection in std::mem::take(&mut self.connections).into_values() {
            self.note(&connection, None);
        }
        // A process that the program has left behind may send packets without end.
        let _ = (0..LAST_ROUNDS).all(|_| self.note_packets()); // false at the last packet
        self.shared.log.finish()?;
        self.shared.learned.map_or(Ok(()), |learned| learned.write())
    }

    fn handle(&mut self, data: u64) {
        match data {
            TIMER => self.time_out(),
            LOOKUPS => {
                for (key, addresses) in self.shared.lookups.answers() {
                    self.with(key, |connection, shared| {
                        connection.looked_up(shared, key, &addresses)?;
                        connection.go_on(shared, key)
                    });
                }
            }
            PACKETS => drop(self.note_packets()),
            SIGNALS => {}
            RESOLVERS.. => self.resolve((data - RESOLVERS) as usize),
            _ => self.accept((data - LISTENERS) as usize),
        }
    }

    fn has_room(&self) -> bool {
        self.connections.len() < self.most && self.new < MOST_NEW
    }

    /// Accepts connections, as long as there is room.
    fn accept(&mut self, place: usize) {
        for _ in 0..AT_A_TIME {
            if !self.has_room() {
                return self.pause(true);
            }
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match retry_on_intr(|| accept_with(&self.sockets.listeners[place], flags)) {
                Ok(socket) => self.accepted(socket, place),
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    return self.pause(true);
                }
                Err(_) => return,
            }
        }
    }

    fn accepted(&mut self, socket: OwnedFd, place: usize) {
        let wanted = match place {
            0 => sockopt::ip_original_dst(&socket).map(SocketAddr::V4),
            _ => sockopt::ipv6_original_dst(&socket).map(SocketAddr::V6),
        };
        let wanted = wanted.ok().filter(|wanted| !self.addresses.contains(wanted));
        let Some(wanted) = wanted else {
            return self.refuse(
                &socket,
                self.addresses[place],
                None,
                "a connection to jc-egress itself",
            );
        };
        let target = match Target::allowed(wanted, &self.shared.names, &self.shared.rules) {
            Ok(target) => target,
            Err((name, refusal)) => {
                return self.refuse(&socket, wanted, name.as_deref(), refusal.words());
            }
        };
        let key = self.next;
        let connection = Connection::new(socket, target, self.shared.learned.is_some());
        self.connections.insert(key, Box::new(connection));
        self.next += 1;
        self.new += 1;
        self.timer.set(true);
        self.with(key, |connection, shared| {
            shared.report(connection.inside(), key_of(key, End::Inside))?;
            connection.go_on(shared, key)
        });
    }

    /// Resets a connection that no rule allows, and writes its line.
    fn refuse(&mut self, socket: &OwnedFd, wanted: SocketAddr, name: Option<&str>, why: &str) {
        reset(socket);
        let (address, port) = (Some(wanted.ip()), Some(wanted.port()));
        let entry =
            Entry { refused: Some(why), protocol: "tcp", name, address, port, ..Entry::default() };
        self.shared.write(&entry);
    }

    /// Makes a step of a connection, and ends the connection if the step says so.
    fn with(
        &mut self,
        key: u64,
        act: impl FnOnce(&mut Connection, &mut Shared) -> std::result::Result<bool, Failure>,
    ) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let was_new = connection.is_new();
        let outcome = act(connection, &mut self.shared);
        let is_new = connection.is_new();
        if matches!(outcome, Ok(false)) {
            self.new -= usize::from(was_new && !is_new);
            return;
        }
        self.new -= usize::from(was_new);
        if let Some(connection) = self.connections.remove(&key) {
            let failure = outcome.err();
            if failure.is_some() {
                reset(connection.inside());
            }
            self.note(&connection, failure);
        }
        self.pause(false);
    }

    /// Writes the line about a connection that ends.
    fn note(&mut self, connection: &Connection, failure: Option<Failure>) {
        let target = &connection.target;
        if target.port == DNS && failure.is_none() {
            return;
        }
        let (refused, error) = match &failure {
            Some(Failure::Refused(why)) => (Some(*why), None),
            Some(Failure::Broken(why)) => (None, Some(why.as_str())),
            None => (None, None),
        };
        let (sent, received) = connection.moved();
        self.shared.write(&Entry {
            refused,
            error,
            protocol: "tcp",
            name: target.name.as_deref(),
            address: Some(connection.peer.unwrap_or(target.address)),
            port: Some(target.port),
            sni: connection.inspection.sni.as_deref(),
            moved: Some((sent, received, connection.begun.elapsed())),
            rule: Some(&target.rule).filter(|rule| !rule.is_empty()).map(String::as_str),
        });
    }

    /// Stops to accept, or begins again.
    fn pause(&mut self, pause: bool) {
        if self.is_paused == pause || !pause && !self.has_room() {
            return;
        }
        let flags = if pause { epoll::EventFlags::empty() } else { epoll::EventFlags::IN };
        for (socket, data) in self.sockets.listeners.iter().zip(LISTENERS..) {
            let data = epoll::EventData::new_u64(data);
            if let Err(error) =
                epoll::modify(&self.shared.epoll, socket, data, flags).op("epoll_ctl")
            {
                EGRESS.exit(&error);
            }
        }
        self.is_paused = pause;
    }

    /// Answers queries that have come as datagrams.
    fn resolve(&mut self, place: usize) {
        for _ in 0..AT_A_TIME {
            let mut query = Vec::with_capacity(dns::LONGEST + 1);
            let socket = &self.sockets.resolvers[place];
            let received = recvfrom(socket, spare_capacity(&mut query), RecvFlags::DONTWAIT);
            match received {
                Ok((_, _, Some(client))) => {
                    // A packet that was rejected before the query has its line before.
                    self.note_packets();
                    if let Some(answer) = self.shared.answer(&query) {
                        // A client that has gone, or has no room, asks again.
                        let socket = &self.sockets.resolvers[place];
                        let _ = sendto(socket, &answer, SendFlags::DONTWAIT, &client);
                    }
                }
                // The error of a datagram that was sent before, or nothing.
                _ => return,
            }
        }
    }

    /// Writes the packets that the table has rejected to the log. Returns whether there may be more.
    fn note_packets(&mut self) -> bool {
        let Some(socket) = &self.sockets.packets else { return false };
        for _ in 0..AT_A_TIME {
            match packets::next(socket, &mut self.shared.buffer[..]) {
                Ok(Some(packet)) => {
                    let (address, port) = (Some(packet.address), packet.port);
                    let refused = Some("not a connection of TCP");
                    let protocol = &packet.protocol;
                    self.shared.write(&Entry {
                        refused,
                        protocol,
                        address,
                        port,
                        ..Entry::default()
                    });
                }
                Ok(None) => return self.count_dropped(),
                // ENOBUFS: packets had no room, which are counted.
                Err(Errno::NOBUFS | Errno::BADMSG) => {}
                Err(errno) => {
                    EGRESS.exit(&Error::new(format_args!("read rejected packets: {errno}")))
                }
            }
        }
        true
    }

    /// Adds the packets that had no room to the refusals without a line.
    fn count_dropped(&mut self) -> bool {
        let Some(socket) = &self.sockets.packets else { return false };
        match packets::dropped(socket) {
            Ok(dropped) => {
                self.shared.log.skip(u64::from(dropped.wrapping_sub(self.dropped)));
                self.dropped = dropped;
            }
            Err(error) => EGRESS.exit(&error),
        }
        false
    }

    fn time_out(&mut self) {
        self.timer.clear();
        let now = Instant::now();
        let waiting = self.connections.iter().filter_map(|(key, c)| Some((*key, c.deadline?)));
        let waiting: Vec<(u64, Instant)> = waiting.collect();
        self.timer.set(!waiting.is_empty());
        for (key, _) in waiting.into_iter().filter(|(_, deadline)| *deadline <= now) {
            self.with(key, |connection, shared| connection.time_out(shared, key));
        }
        // The kernel may have room again.
        self.pause(false);
    }
}

impl Poller for Proxy {
    fn polled(&self) -> Vec<PollFd<'_>> {
        vec![readable(self.shared.epoll.as_fd())]
    }

    /// Handles events until there is a signal for this process. epoll(7) alone waits, since a ppoll(2) before each wait would
    /// cost a tenth of the connections a second.
    fn handle(&mut self, _: &[bool]) {
        let mut events = Vec::with_capacity(EVENTS);
        let mut is_over = false;
        while !is_over {
            events.clear();
            let waited = epoll::wait(&self.shared.epoll, spare_capacity(&mut events), None);
            if waited.is_err() {
                return;
            }
            for event in &events {
                let (data, flags) = (event.data.u64(), event.flags);
                is_over |= data == SIGNALS;
                if data >= LISTENERS {
                    self.handle(data);
                    continue;
                }
                let end = if data & 1 == 1 { End::Outside } else { End::Inside };
                self.with(data >> 1, |connection, shared| {
                    connection.note(end, flags);
                    connection.go_on(shared, data >> 1)
                });
            }
        }
    }
}

/// Makes the kernel reset a connection when its socket is closed.
fn reset(socket: &OwnedFd) {
    // A connection that is over need not be reset.
    let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}
