//! `linux` of `config.json` (config-linux.md).

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::null::null_is_default;

/// The part of the configuration for Linux.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Linux {
    #[serde(deserialize_with = "null_is_default")]
    pub uid_mappings: Vec<IdMapping>,
    #[serde(deserialize_with = "null_is_default")]
    pub gid_mappings: Vec<IdMapping>,
    #[serde(deserialize_with = "null_is_default")]
    pub sysctl: BTreeMap<String, String>,
    /// Limits, which jc-cgroup parses.
    pub resources: Option<Map<String, Value>>,
    #[serde(deserialize_with = "null_is_default")]
    pub cgroups_path: String,
    #[serde(deserialize_with = "null_is_default")]
    pub namespaces: Vec<Namespace>,
    #[serde(deserialize_with = "null_is_default")]
    pub devices: Vec<Device>,
    #[serde(deserialize_with = "null_is_default")]
    pub net_devices: BTreeMap<String, NetDevice>,
    /// The filter, which jc-rootfs parses.
    pub seccomp: Option<Box<RawValue>>,
    #[serde(deserialize_with = "null_is_default")]
    pub rootfs_propagation: String,
    #[serde(deserialize_with = "null_is_default")]
    pub masked_paths: Vec<PathBuf>,
    #[serde(deserialize_with = "null_is_default")]
    pub readonly_paths: Vec<PathBuf>,
    #[serde(deserialize_with = "null_is_default")]
    pub mount_label: String,
    pub intel_rdt: Option<Value>,
    /// A policy of set_mempolicy(2), which jc-rootfs parses.
    pub memory_policy: Option<Value>,
    pub personality: Option<Personality>,
    #[serde(deserialize_with = "null_is_default")]
    pub time_offsets: BTreeMap<String, TimeOffset>,
}

/// A range of IDs of a user namespace.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct IdMapping {
    #[serde(rename = "containerID")]
    pub inside: u32,
    #[serde(rename = "hostID")]
    pub outside: u32,
    pub size: u32,
}

/// A namespace: new, or that of a file.
#[derive(Clone, Debug, Deserialize)]
pub struct Namespace {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub path: Option<PathBuf>,
}

impl Namespace {
    /// The path, if it is given: Go writes an absent path as an empty one.
    pub fn path(&self) -> Option<&PathBuf> {
        self.path.as_ref().filter(|path| !path.as_os_str().is_empty())
    }
}

/// A device node of the container.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    #[serde(rename = "type")]
    pub kind: String,
    pub path: PathBuf,
    #[serde(default)]
    pub major: i64,
    #[serde(default)]
    pub minor: i64,
    pub file_mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

/// A network interface that moves into the container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NetDevice {
    #[serde(deserialize_with = "null_is_default")]
    pub name: String,
}

/// A domain of personality(2).
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Personality {
    pub domain: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub flags: Vec<String>,
}

/// The offset of a clock of time_namespaces(7).
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct TimeOffset {
    pub secs: i64,
    pub nanosecs: u32,
}
