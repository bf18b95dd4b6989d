//! The facts that a chain needs beside the configuration.

use std::path::Path;

use serde_json::Value;

/// The numbers of descriptors that the chain inherits.
#[derive(Clone, Copy, Debug)]
pub struct Descriptors {
    /// Links write events to this one.
    pub events: u32,
    /// The gate between the mounts and the change of the root.
    pub mounts: Option<u32>,
    /// The gate before the execution of the program.
    pub exec: u32,
    /// The gate before the first link.
    pub scope: u32,
    /// The socket from which jc-rootfs gets a network namespace that this program creates.
    pub network: Option<u32>,
}

impl Descriptors {
    /// The first numbers that the program does not get.
    pub fn after(preserved: u32) -> Self {
        Self {
            events: 3 + preserved,
            mounts: Some(4 + preserved),
            exec: 5 + preserved,
            scope: 6 + preserved,
            network: None,
        }
    }
}

/// The facts beside the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    pub bundle: &'a Path,
    /// The path of the cgroup, if there is to be one.
    pub cgroup: Option<&'a str>,
    /// Whether the program of `exec` waits in a frozen cgroup.
    pub waits_for_thaw: bool,
    /// Whether the chain waits until systemd has made the cgroup.
    pub waits_for_scope: bool,
    pub descriptors: Descriptors,
    pub console_socket: Option<&'a Path>,
    /// The descriptors from 3 on that the program gets.
    pub preserved: u32,
    /// The number of these that are sockets of the service manager.
    pub listened: Option<u32>,
    /// The process with which the program dies, if there is one.
    pub parent: Option<u32>,
    /// The capabilities that this process can hand on, a bit for each.
    pub held: u64,
    /// The state for hooks and the seccomp listener.
    pub state: &'a Value,
}
