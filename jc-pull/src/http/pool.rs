//! Clients, each for one request at a time.
//!
//! A client of hyper without an idle connection starts a new one, and keeps it even if another connection
//! becomes idle meanwhile. Requests that share a client therefore make more connections than there are
//! requests at a time. A client with one request at a time has one connection to each host.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use jc_unshare::Result;
use reqwest::blocking::{self, Client};
use rustls::ClientConfig;

use super::zone::{Resolver, Zone};

/// The properties of a request that decide about the client.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Kind {
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

/// The clients of one kind that have no request. They share the TLS configuration, which has the tickets
/// of TLS sessions.
struct Idle {
    tls: ClientConfig,
    sessions: Vec<Session>,
}

/// The clients that have no request.
#[derive(Clone, Default)]
pub struct Pool(Arc<Mutex<HashMap<Kind, Idle>>>);

impl Pool {
    /// Takes a client for one request, or makes one. Errors are those of `configure` and `connect`.
    pub fn lease(
        &self,
        kind: Kind,
        configure: impl FnOnce(&Kind) -> Result<ClientConfig>,
        connect: impl FnOnce(&Kind, ClientConfig) -> Result<Session>,
    ) -> Result<Lease> {
        let mut pool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let session = match pool.entry(kind.clone()) {
            Entry::Occupied(entry) => {
                let idle = entry.into_mut();
                idle.sessions.pop().map_or_else(|| connect(&kind, idle.tls.clone()), Ok)?
            }
            Entry::Vacant(entry) => {
                let idle = Idle { tls: configure(&kind)?, sessions: Vec::new() };
                connect(&kind, entry.insert(idle).tls.clone())?
            }
        };
        Ok(Lease { pool: self.clone(), kind, session })
    }
}

/// A client that has a request. The client goes back to the pool with this value.
pub struct Lease {
    pool: Pool,
    kind: Kind,
    pub session: Session,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut pool = self.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(idle) = pool.get_mut(&self.kind) {
            idle.sessions.push(self.session.clone());
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
