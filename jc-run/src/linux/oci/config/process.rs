//! `process` of `config.json`, which is also the file of `exec --process`.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use super::null::null_is_default;

/// The program of a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    #[serde(default)]
    pub terminal: bool,
    pub console_size: Option<ConsoleSize>,
    #[serde(default)]
    pub user: User,
    #[serde(default, deserialize_with = "null_is_default")]
    pub args: Vec<String>,
    /// The arguments for Windows.
    pub command_line: Option<Value>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    pub cwd: PathBuf,
    pub capabilities: Option<Capabilities>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub rlimits: Vec<Rlimit>,
    #[serde(default)]
    pub no_new_privileges: bool,
    #[serde(default, deserialize_with = "null_is_default")]
    pub apparmor_profile: String,
    pub oom_score_adj: Option<i32>,
    /// A policy of sched(7), which jc-rootfs parses.
    pub scheduler: Option<Value>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub selinux_label: String,
    pub io_priority: Option<IoPriority>,
    #[serde(rename = "execCPUAffinity")]
    pub exec_cpu_affinity: Option<CpuAffinity>,
}

/// The size of a terminal in characters.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct ConsoleSize {
    pub height: u16,
    pub width: u16,
}

/// The user of a program.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub umask: Option<u32>,
    #[serde(deserialize_with = "null_is_default")]
    pub additional_gids: Vec<u32>,
    /// The name of a user of Windows.
    pub username: Option<Value>,
}

/// The five sets of capabilities(7).
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub struct Capabilities {
    #[serde(deserialize_with = "null_is_default")]
    pub bounding: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub effective: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub inheritable: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub permitted: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub ambient: Vec<String>,
}

impl Capabilities {
    /// The sets with their names.
    pub fn sets(&self) -> [(&'static str, &Vec<String>); 5] {
        [
            ("bounding", &self.bounding),
            ("effective", &self.effective),
            ("inheritable", &self.inheritable),
            ("permitted", &self.permitted),
            ("ambient", &self.ambient),
        ]
    }

    /// Adds a capability to all sets that `exec --cap` changes.
    pub fn add(&mut self, name: &str) {
        for set in [&mut self.bounding, &mut self.effective, &mut self.permitted] {
            if !set.iter().any(|held| held == name) {
                set.push(name.to_owned());
            }
        }
    }
}

/// A limit of setrlimit(2).
#[derive(Clone, Debug, Deserialize)]
pub struct Rlimit {
    #[serde(rename = "type")]
    pub kind: String,
    pub soft: u64,
    pub hard: u64,
}

/// A priority of ioprio_set(2).
#[derive(Clone, Debug, Deserialize)]
pub struct IoPriority {
    pub class: String,
    #[serde(default)]
    pub priority: i32,
}

/// CPUs of a program of `exec`, before and after it has entered the container's cgroup.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CpuAffinity {
    #[serde(deserialize_with = "null_is_default")]
    pub initial: String,
    #[serde(rename = "final", deserialize_with = "null_is_default")]
    pub last: String,
}
