//! The proxy: accepts the connections of the program, and the queries, in one thread by epoll(7).

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use jc_unshare::supervise::{Poller, readable};
use jc_unshare::{Context, Result};
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, Timespec, epoll};
use rustix::io::{Errno, read, retry_on_intr};
use rustix::net::{
    RecvFlags, SendFlags, SocketFlags, accept_with, getsockname, recvfrom, sendto, sockopt,
};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use super::connection::{Connection, End, Failure, Target};
use super::dns;
use super::inside::Sockets;
use super::log::{Entry, Log};
use super::lookup::Lookups;
use super::names::{self, Names};
use super::relay::Pipes;
use super::rule::{Check, DNS};
use super::rules::{Refusal, Rules};
use super::table::Table;
use crate::EGRESS;

/// How many connections may wait for their first bytes, each with some bytes in memory.
const MOST_NEW: usize = 1024;
/// How many events are taken at a time, and how often before signals have their turn.
const EVENTS: usize = 128;
const ROUNDS: usize = 16;
/// How many connections, or queries, are taken from a socket before others have their turn.
const AT_A_TIME: usize = 64;

/// Numbers that epoll(7) gives for descriptors that are no connections.
const LISTENERS: u64 = 1 << 63;
const RESOLVERS: u64 = LISTENERS | 1 << 32;
const LOOKUPS: u64 = LISTENERS | 2 << 32;
const TIMER: u64 = LISTENERS | 3 << 32;

/// The number that epoll(7) gives for a socket of a connection.
pub fn key_of(key: u64, end: End) -> u64 {
    key << 1 | u64::from(end == End::Outside)
}

/// Resources that all connections use.
pub struct Shared {
    epoll: OwnedFd,
    /// The rules of the run.
    pub rules: Rules,
    /// Lookups of names outside.
    pub lookups: Lookups,
    /// Pipes without bytes in them.
    pub pipes: Pipes,
    /// Room for what is read, before it belongs to a connection.
    pub buffer: Box<[u8; 16 << 10]>,
    names: Names,
    log: Log,
    has_v6: bool,
}

impl Shared {
    /// Has epoll(7) report changes of a socket.
    pub fn report(&self, socket: &OwnedFd, data: u64) -> std::result::Result<(), Errno> {
        epoll::add(&self.epoll, socket, epoll::EventData::new_u64(data), FLAGS)
    }

    /// Has epoll(7) report the present state of a socket again.
    pub fn report_again(&self, socket: &OwnedFd, data: u64) -> std::result::Result<(), Errno> {
        epoll::modify(&self.epoll, socket, epoll::EventData::new_u64(data), FLAGS)
    }

    /// Answers a query, and writes a refusal to the log.
    pub fn answer(&mut self, query: &[u8]) -> Option<Vec<u8>> {
        let answer = dns::answer(query, &self.rules, &mut self.names, self.has_v6)?;
        if let Some((name, why)) = &answer.refused {
            let entry =
                Entry { refused: Some(why), protocol: "dns", name: Some(name), ..Entry::default() };
            self.write(&entry);
        }
        Some(answer.bytes)
    }

    /// Writes to the log. Without the log that was asked for, the run ends, and the program with it.
    fn write(&mut self, entry: &Entry<'_>) {
        if let Err(error) = self.log.write(entry) {
            EGRESS.exit(&error);
        }
    }
}

const FLAGS: epoll::EventFlags =
    epoll::EventFlags::IN.union(epoll::EventFlags::OUT).union(epoll::EventFlags::ET);

/// The proxy: its sockets inside, and its connections.
pub struct Proxy {
    shared: Shared,
    sockets: Sockets,
    addresses: Vec<SocketAddr>,
    table: Table<Connection>,
    /// The most connections at a time.
    most: usize,
    /// How many wait for their first bytes.
    new: usize,
    is_paused: bool,
    timer: OwnedFd,
    is_timed: bool,
}

impl Proxy {
    /// A proxy that accepts from these sockets. `most` connections have descriptors enough.
    pub fn new(sockets: Sockets, rules: Rules, log: Log, most: usize) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).op("epoll_create1")?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).op("timerfd_create")?;
        let lookups = Lookups::new()?;
        let has_v6 = sockets.listeners.len() > 1;
        let shared = Shared {
            epoll,
            rules,
            lookups,
            pipes: Pipes::default(),
            buffer: Box::new([0; 16 << 10]),
            names: Names::default(),
            log,
            has_v6,
        };
        let address = |socket: &OwnedFd| {
            let name = getsockname(socket).and_then(SocketAddr::try_from);
            name.op("getsockname")
        };
        let addresses = sockets.listeners.iter().map(address).collect::<Result<_>>()?;
        let proxy = Self {
            shared,
            sockets,
            addresses,
            table: Table::default(),
            most,
            new: 0,
            is_paused: false,
            timer,
            is_timed: false,
        };
        for (sockets, base) in
            [(&proxy.sockets.listeners, LISTENERS), (&proxy.sockets.resolvers, RESOLVERS)]
        {
            for (socket, data) in sockets.iter().zip(base..) {
                proxy.watch(socket.as_fd(), data)?;
            }
        }
        proxy.watch(proxy.shared.lookups.bell(), LOOKUPS)?;
        proxy.watch(proxy.timer.as_fd(), TIMER)?;
        Ok(proxy)
    }

    fn watch(&self, fd: impl AsFd, data: u64) -> Result<()> {
        let data = epoll::EventData::new_u64(data);
        epoll::add(&self.shared.epoll, fd, data, epoll::EventFlags::IN).op("epoll_ctl")
    }

    /// The descriptors without which the proxy cannot go on.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let shared = &self.shared;
        let mut all = vec![shared.epoll.as_fd(), shared.lookups.bell(), self.timer.as_fd()];
        all.extend(self.sockets.listeners.iter().chain(&self.sockets.resolvers).map(AsFd::as_fd));
        all.extend(shared.log.descriptor());
        all
    }

    /// Ends all connections, which the log then has.
    pub fn finish(mut self) {
        for key in self.table.keys() {
            if let Some(connection) = self.table.remove(key) {
                self.note(&connection, None);
            }
        }
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
            RESOLVERS.. => self.resolve((data - RESOLVERS) as usize),
            _ => self.accept((data - LISTENERS) as usize),
        }
    }

    /// Accepts connections, as long as there is room.
    fn accept(&mut self, place: usize) {
        for _ in 0..AT_A_TIME {
            if self.table.len() >= self.most || self.new >= MOST_NEW {
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
        let target = match self.target(wanted) {
            Ok(target) => target,
            Err((name, refusal)) => {
                return self.refuse(&socket, wanted, name.as_deref(), refusal.words());
            }
        };
        let key = self.table.add(Connection::new(socket, target));
        self.new += 1;
        self.set_timer(true);
        self.with(key, |connection, shared| {
            shared.report(connection.inside(), key_of(key, End::Inside))?;
            connection.go_on(shared, key)
        });
    }

    /// Where a connection goes, if a rule allows it.
    fn target(
        &self,
        wanted: SocketAddr,
    ) -> std::result::Result<Target, (Option<std::rc::Rc<str>>, Refusal)> {
        let (address, port) = (wanted.ip(), wanted.port());
        let name = self.shared.names.name(address);
        let rule = match &name {
            _ if port == DNS => None,
            Some(name) => {
                let rule = self.shared.rules.by_name(name, port);
                Some(rule.map_err(|refusal| (Some(name.clone()), refusal))?)
            }
            None if names::is_own(address) => return Err((None, Refusal::NoRule)),
            None => {
                let rule = self.shared.rules.by_address(address, port);
                Some(rule.map_err(|refusal| (None, refusal))?)
            }
        };
        let check = rule.map_or(Check::Tcp, |rule| rule.check(port));
        let private = rule.is_some_and(|rule| rule.private);
        let rule = rule.map(ToString::to_string).unwrap_or_default();
        Ok(Target { address, port, name, rule, check, private })
    }

    /// Resets a connection that was accepted only to say so.
    fn refuse(&mut self, socket: &OwnedFd, wanted: SocketAddr, name: Option<&str>, why: &str) {
        reset(socket);
        let (address, port) = (Some(wanted.ip()), Some(wanted.port()));
        let entry =
            Entry { refused: Some(why), protocol: "tcp", name, address, port, ..Entry::default() };
        self.shared.write(&entry);
    }

    /// Lets a connection go on, and sees to its end.
    fn with(
        &mut self,
        key: u64,
        act: impl FnOnce(&mut Connection, &mut Shared) -> std::result::Result<bool, Failure>,
    ) {
        let Some(connection) = self.table.get(key) else { return };
        let was_new = connection.is_new();
        let outcome = act(connection, &mut self.shared);
        let is_new = connection.is_new();
        if matches!(outcome, Ok(false)) {
            self.new -= usize::from(was_new && !is_new);
            return;
        }
        self.new -= usize::from(was_new);
        if let Some(connection) = self.table.remove(key) {
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
            sni: connection.sni.as_deref(),
            moved: Some((sent, received, connection.begun.elapsed())),
            rule: Some(&target.rule).filter(|rule| !rule.is_empty()).map(String::as_str),
        });
    }

    /// Stops to accept, or begins again.
    fn pause(&mut self, pause: bool) {
        let has_room = self.table.len() < self.most && self.new < MOST_NEW;
        if self.is_paused == pause || !pause && !has_room {
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

    /// Has the timer tell once a second that time-outs may be over.
    fn set_timer(&mut self, on: bool) {
        if self.is_timed == on {
            return;
        }
        let every = Timespec { tv_sec: i64::from(on), tv_nsec: 0 };
        let time = Itimerspec { it_interval: every, it_value: every };
        match timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &time).op("timerfd_settime")
        {
            Ok(_) => self.is_timed = on,
            Err(error) => EGRESS.exit(&error),
        }
    }

    fn time_out(&mut self) {
        // A count of zero means that another call has read it.
        let _ = read(&self.timer, &mut [0; 8]);
        let now = std::time::Instant::now();
        let mut waits = false;
        for key in self.table.keys() {
            let deadline = self.table.get(key).and_then(|connection| connection.deadline);
            waits |= deadline.is_some();
            if deadline.is_some_and(|deadline| deadline <= now) {
                self.with(key, |connection, shared| connection.time_out(shared, key));
            }
        }
        self.set_timer(waits);
        // The kernel may have room again.
        self.pause(false);
    }
}

impl Poller for Proxy {
    fn polled(&self) -> Vec<PollFd<'_>> {
        vec![readable(self.shared.epoll.as_fd())]
    }

    fn handle(&mut self, _: &[bool]) {
        let mut events = Vec::with_capacity(EVENTS);
        for _ in 0..ROUNDS {
            events.clear();
            let none = Timespec { tv_sec: 0, tv_nsec: 0 };
            let waited = epoll::wait(&self.shared.epoll, spare_capacity(&mut events), Some(&none));
            if waited.is_err() || events.is_empty() {
                return;
            }
            for event in &events {
                let (data, flags) = (event.data.u64(), event.flags);
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

/// Has the kernel reset a connection when its socket is closed.
fn reset(socket: &OwnedFd) {
    // A connection that is over need not be reset.
    let _ = sockopt::set_socket_linger(socket, Some(std::time::Duration::ZERO));
}
