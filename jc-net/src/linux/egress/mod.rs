//! `jc-egress`: a network that leads to the hosts of a list only.
//!
//! The program's network namespace has no link but loopback, so that no packet leaves it. A table there leads
//! each connection to a socket of this process, which dials outside in its own namespace what the rules allow.

mod address;
pub mod args;
mod bare;
mod connection;
mod dial;
mod dns;
pub mod fuzz;
mod http;
mod inside;
mod inspection;
mod learned;
mod log;
mod lookup;
mod name;
mod names;
mod packets;
mod proxy;
mod relay;
mod rule;
mod rules;
mod shared;
mod start;
mod target;
mod timer;
mod tls;

use std::os::fd::AsFd;
use std::process::ExitCode;

use jc_unshare::Result;
use jc_unshare::events::StatusFd;
use jc_unshare::process::deny_tracing;
use jc_unshare::sys::close_all_but;
use rustix::io::Errno;
use rustix::stdio::stderr;

pub use args::Args;
use learned::Learned;
use log::Log;
use proxy::Proxy;
use start::Started;

use crate::EGRESS;

/// Descriptors of a connection: two sockets, and two pipes while bytes wait.
const FDS_OF_A_CONNECTION: u64 = 6;
/// Descriptors besides.
const OTHER_FDS: u64 = 128;
/// The most connections at a time: more have no source ports.
const MOST_CONNECTIONS: u64 = 16384;

/// Does what the command line says. Returns the program's exit code.
pub fn run(args: &Args) -> Result<ExitCode> {
    // First: a descriptor that the caller has not opened must not turn out to be one of ours.
    let open = |number| StatusFd::open(EGRESS, number);
    let status = args.status_fd.map(open).transpose()?;
    // A program that no later link starts gets no descriptor of its caller's.
    let status = match status.filter(|_| !args.only_network) {
        Some(status) => Some(status.close_on_exec()?),
        None => status,
    };
    let log = Log::open(args.log.as_deref())?;
    let rules = args.rules()?;
    let learned = args.learn.as_deref().map(Learned::new).transpose()?;
    let Started { child, sockets, mut gate } = match start::start(args, status)? {
        Ok(started) => started,
        Err(exit) => return Ok(exit.end()),
    };
    let most = raise_limit()?;
    let mut proxy = Proxy::new(sockets, rules, learned, log, most)?;
    let [signals, ..] = child.descriptors();
    proxy.watch_signals(signals)?;
    deny_tracing()?;
    match gate.open() {
        // The child is dead, and the wait below has its status.
        Err(error) if error.errno() == Some(Errno::PIPE.raw_os_error()) => {}
        opened => opened?,
    }
    drop(gate);
    // A pipe must see its other end closed when the program closes it. Only stderr stays, for an error of the log.
    let mut kept = child.descriptors().to_vec();
    kept.extend(proxy.descriptors());
    kept.extend(status.as_ref().map(AsFd::as_fd));
    kept.push(stderr());
    close_all_but(&kept);
    let exit = child.wait_polling(&mut proxy)?;
    proxy.finish()?;
    Ok(exit.end())
}

/// Raises the limit of descriptors of this process, which has its child by now. Returns how many connections
/// there may be.
fn raise_limit() -> Result<usize> {
    let limit = jc_unshare::rlimit::raise_descriptors()?;
    let most = limit.unwrap_or(u64::MAX).saturating_sub(OTHER_FDS) / FDS_OF_A_CONNECTION;
    Ok(most.clamp(1, MOST_CONNECTIONS) as usize)
}
