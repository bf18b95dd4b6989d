//! The agent that decides about system calls with SCMP_ACT_NOTIFY (config-linux.md, "The Container Process State").

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use jc_unshare::{Error, Result, rights};
use serde_json::{Map, Value, json};

use crate::linux::socket::connect_to;

/// The socket of the agent, by its path on the host, and the text for the agent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Agent {
    pub path: PathBuf,
    pub metadata: Option<String>,
}

/// A connection to the agent.
pub struct Connection {
    socket: OwnedFd,
    message: Value,
}

impl Agent {
    /// Connects to the agent, before the root changes. `state` is the state of the container with its PID.
    pub fn connect(&self, state: Option<Map<String, Value>>) -> Result<Connection> {
        let state = state.ok_or_else(|| {
            Error::usage("a listener of seccomp needs --state, and with --join also --no-wait")
        })?;
        let version = state.get("ociVersion").cloned().unwrap_or_else(|| json!("1.0.2"));
        let mut message = json!({ "ociVersion": version, "fds": ["seccompFd"], "state": state });
        if let Some(metadata) = &self.metadata {
            message["metadata"] = json!(metadata);
        }
        Ok(Connection { socket: connect_to(&self.path)?, message })
    }
}

/// The listener of a filter that is installed, for the agent.
pub struct Listener {
    pub(super) connection: Connection,
    pub(super) listener: OwnedFd,
}

impl Listener {
    /// Sends the descriptor with the state and the PID of the payload.
    pub fn send(mut self, pid: u32) -> Result<()> {
        self.connection.message["pid"] = pid.into();
        let text = self.connection.message.to_string();
        rights::send(&self.connection.socket, &[self.listener.as_fd()], text.as_bytes())
    }
}
