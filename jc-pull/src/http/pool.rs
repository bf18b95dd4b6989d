//! Clients, each for one request at a time.
//!
//! A client of hyper without an idle connection starts a new one, and keeps it even if another connection
//! becomes idle meanwhile. Requests that share a client therefore make more connections than there are
//! requests at a time. A client with one request at a time has one connection to each host.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};

use jc_unshare::Result;
use reqwest::blocking::{self, Client};
use rustls::ClientConfig;

use super::zone::{Resolver, Zone};
use crate::parallel::lock;

/// The properties of a request that decide about the client.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ClientKind {
    pub tls: bool,
    /// Whether no proxy is used: the loopback of a proxy is another machine's.
    pub direct: bool,
    /// Whether the server has to prove its name.
    pub verified: bool,
    /// A host that has a directory in `certs.d`.
    pub host: Option<String>,
    /// The addresses that the hosts may have.
    pub limit: Option<Zone>,
}

/// A client, and the resolver of its names.
#[derive(Clone)]
pub struct Session {
    pub client: Client,
    pub resolver: Resolver,
}

/// The clients without a request. Clients of one kind share a TLS configuration, which has the tickets of TLS
/// sessions.
type Idle = HashMap<ClientKind, (ClientConfig, Vec<Session>)>;

/// The clients of all kinds.
#[derive(Clone, Default)]
pub struct Pool(Arc<Mutex<Idle>>);

impl Pool {
    /// Takes a client for one request, or makes one. Errors are those of `configure` and `connect`.
    pub fn lease(
        &self,
        kind: ClientKind,
        configure: impl FnOnce(&ClientKind) -> Result<ClientConfig>,
        connect: impl FnOnce(&ClientKind, ClientConfig) -> Result<Session>,
    ) -> Result<Lease> {
        let mut pool = lock(&self.0);
        let (tls, idle) = match pool.entry(kind.clone()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert((configure(&kind)?, Vec::new())),
        };
        let session = idle.pop().map_or_else(|| connect(&kind, tls.clone()), Ok)?;
        Ok(Lease { pool: self.clone(), kind, session })
    }
}

/// A client that has a request. The client goes back to the pool with this value.
pub struct Lease {
    pool: Pool,
    kind: ClientKind,
    pub session: Session,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some((_, idle)) = lock(&self.pool.0).get_mut(&self.kind) {
            idle.push(self.session.clone());
        }
    }
}

/// An answer. The next request gets its connection once the answer has been read and dropped.
pub struct Response {
    answer: blocking::Response,
    _lease: Lease,
}

impl Response {
    pub const fn new(answer: blocking::Response, lease: Lease) -> Self {
        Self { answer, _lease: lease }
    }
}

impl Deref for Response {
    type Target = blocking::Response;

    fn deref(&self) -> &blocking::Response {
        &self.answer
    }
}

impl DerefMut for Response {
    fn deref_mut(&mut self) -> &mut blocking::Response {
        &mut self.answer
    }
}
