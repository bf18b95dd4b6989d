//! Resources that all connections use.

use std::os::fd::{AsFd, OwnedFd};

use jc_unshare::{Context, Result};
use rustix::event::epoll;
use rustix::io::Errno;

use super::dns;
use super::learned::Learned;
use super::log::{Entry, Log};
use super::lookup::Lookups;
use super::names::Names;
use super::relay::Pipes;
use super::rules::Rules;
use crate::EGRESS;

/// The two sockets of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// The socket of the program.
    Inside,
    /// The socket of the host.
    Outside,
}

/// The number that epoll(7) gives for a socket of a connection.
pub fn key_of(key: u64, end: End) -> u64 {
    key << 1 | u64::from(end == End::Outside)
}

const FLAGS: epoll::EventFlags =
    epoll::EventFlags::IN.union(epoll::EventFlags::OUT).union(epoll::EventFlags::ET);

/// Resources that all connections use.
pub struct Shared {
    /// Reports changes of all descriptors.
    pub epoll: OwnedFd,
    /// The rules of the run.
    pub rules: Rules,
    /// The rules that `--learn` writes.
    pub learned: Option<Learned>,
    /// Lookups of names outside.
    pub lookups: Lookups,
    /// Pipes without bytes in them.
    pub pipes: Pipes,
    /// A buffer for bytes that do not belong to a connection yet.
    pub buffer: Box<[u8; 16 << 10]>,
    /// The synthetic addresses of names.
    pub names: Names,
    /// The log of the run.
    pub log: Log,
    /// Whether the program has IPv6.
    pub has_v6: bool,
}

impl Shared {
    /// The resources of a run that has accepted no connection.
    pub fn new(rules: Rules, learned: Option<Learned>, log: Log, has_v6: bool) -> Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).op("epoll_create1")?,
            rules,
            learned,
            lookups: Lookups::new()?,
            pipes: Pipes::default(),
            buffer: Box::new([0; 16 << 10]),
            names: Names::default(),
            log,
            has_v6,
        })
    }

    /// Adds a descriptor that epoll(7) reports as long as it can be read.
    pub fn watch(&self, fd: impl AsFd, data: u64) -> Result<()> {
        let data = epoll::EventData::new_u64(data);
        epoll::add(&self.epoll, fd, data, epoll::EventFlags::IN).op("epoll_ctl")
    }

    /// Adds a socket whose changes epoll(7) reports.
    pub fn report(&self, socket: &OwnedFd, data: u64) -> std::result::Result<(), Errno> {
        epoll::add(&self.epoll, socket, epoll::EventData::new_u64(data), FLAGS)
    }

    /// Makes epoll(7) report the present state of a socket again.
    pub fn report_again(&self, socket: &OwnedFd, data: u64) -> std::result::Result<(), Errno> {
        epoll::modify(&self.epoll, socket, epoll::EventData::new_u64(data), FLAGS)
    }

    /// Answers a query, and writes a refusal to the log. `None`: the bytes get no answer.
    pub fn answer(&mut self, query: &[u8]) -> Option<Vec<u8>> {
        let answer = dns::answer(query, &self.rules, &mut self.names, self.has_v6);
        if let Some((name, why)) = &answer.refused {
            let name = Some(name.as_str());
            self.write(&Entry { refused: Some(why), protocol: "dns", name, ..Entry::default() });
        }
        answer.bytes
    }

    /// Writes to the log. Without the log that was asked for, the run ends, and the program with it.
    pub fn write(&mut self, entry: &Entry<'_>) {
        if let Err(error) = self.log.write(entry) {
            EGRESS.exit(&error);
        }
    }
}
