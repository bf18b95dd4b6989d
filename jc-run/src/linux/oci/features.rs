//! `features`: the features document of the specification (features.md, features-linux.md).

use jc_unshare::capability::NAMES;
use serde_json::{Value, json};

/// The version of the specification.
pub const VERSION: &str = "1.3.0";

/// Attributes of mounts that an option sets, and with `r` in front sets for all mounts below too.
const ATTRIBUTES: [&str; 18] = [
    "ro",
    "rw",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "exec",
    "noexec",
    "symfollow",
    "nosymfollow",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
];

/// All other options of mounts.
const OPTIONS: [&str; 22] = [
    "async",
    "bind",
    "defaults",
    "dirsync",
    "idmap",
    "lazytime",
    "loud",
    "mand",
    "nolazytime",
    "nomand",
    "private",
    "rbind",
    "remount",
    "ridmap",
    "rprivate",
    "rshared",
    "rslave",
    "runbindable",
    "shared",
    "silent",
    "slave",
    "sync",
];

/// The document about this version of the program.
pub fn document() -> Value {
    let recursive = ATTRIBUTES.iter().map(|name| format!("r{name}"));
    let plain = ATTRIBUTES.iter().chain(&OPTIONS).chain(&["tmpcopyup", "unbindable"]);
    let mut options: Vec<String> = plain.map(|name| (*name).to_owned()).chain(recursive).collect();
    options.sort_unstable();
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": options,
        "linux": linux(),
        "potentiallyUnsafeConfigAnnotations": [],
    })
}

fn linux() -> Value {
    let capabilities: Vec<String> = NAMES.iter().map(|name| format!("CAP_{name}")).collect();
    json!({
        "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
        "capabilities": capabilities,
        "cgroup": { "v1": true, "v2": true, "systemd": true, "systemdUser": false, "rdma": true },
        "seccomp": {
            "enabled": true,
            "actions": [
                "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
                "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP",
            ],
            "operators": [
                "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT",
                "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE",
            ],
            "archs": [
                "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64",
            ],
            "knownFlags": flags(),
            "supportedFlags": flags(),
        },
        "apparmor": { "enabled": true },
        "selinux": { "enabled": true },
        "intelRdt": { "enabled": false },
        "memoryPolicy": {
            "modes": [
                "MPOL_BIND", "MPOL_DEFAULT", "MPOL_INTERLEAVE", "MPOL_LOCAL", "MPOL_PREFERRED",
                "MPOL_PREFERRED_MANY", "MPOL_WEIGHTED_INTERLEAVE",
            ],
            "flags": ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"],
        },
        "netDevices": { "enabled": true },
        "mountExtensions": { "idmap": { "enabled": true } },
    })
}

fn flags() -> [&'static str; 4] {
    [
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
    ]
}
