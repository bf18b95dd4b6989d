//! `linux.namespaces`, and the link that makes and joins them.

use jc_unshare::early_network::Sender;
use jc_unshare::{Error, Result};
use rustix::process::{getegid, geteuid};

use super::context::Context;
use crate::link::{Link, Opt, spare_unshare};
use crate::linux::oci::config::linux::{IdMapping, Namespace, TimeOffset};
use crate::linux::oci::config::{Config, Linux};

/// A kind of namespace: the name in the specification, that of jc-unshare, and the option for a new one.
struct Kind {
    name: &'static str,
    link_name: &'static str,
    option: Option<&'static str>,
}

const KINDS: [Kind; 8] = [
    Kind { name: "user", link_name: "user", option: Some("-U") },
    Kind { name: "cgroup", link_name: "cgroup", option: Some("-C") },
    Kind { name: "ipc", link_name: "ipc", option: Some("-i") },
    Kind { name: "uts", link_name: "uts", option: Some("-u") },
    Kind { name: "network", link_name: "net", option: Some("-n") },
    Kind { name: "time", link_name: "time", option: Some("-T") },
    Kind { name: "pid", link_name: "pid", option: Some("-p") },
    // jc-rootfs makes its own.
    Kind { name: "mount", link_name: "mnt", option: None },
];

/// The namespaces of a configuration that holds them once each.
#[derive(Debug)]
pub struct Namespaces {
    all: Vec<Namespace>,
    options: Vec<Opt>,
}

impl Namespaces {
    /// Checks the namespaces, and what needs them.
    pub fn parse(config: &Config) -> Result<Self> {
        let linux = config.linux();
        let all = linux.namespaces.clone();
        for (at, Namespace { kind, .. }) in all.iter().enumerate() {
            if !KINDS.iter().any(|known| known.name == kind) {
                return Err(Error::new(format_args!("linux.namespaces: unknown type {kind:?}")));
            }
            if all[..at].iter().any(|earlier| earlier.kind == *kind) {
                return Err(Error::new(format_args!("linux.namespaces: {kind} is listed twice")));
            }
            if let Some(path) = all[at].path()
                && !path.is_absolute()
            {
                let path = path.display();
                return Err(Error::new(format_args!(
                    "linux.namespaces: {path}: not an absolute path"
                )));
            }
        }
        let mut namespaces = Self { all, options: Vec::new() };
        namespaces.check(config, linux)?;
        namespaces.options = namespaces.settings(config, linux)?;
        Ok(namespaces)
    }

    fn find(&self, kind: &str) -> Option<&Namespace> {
        self.all.iter().find(|namespace| namespace.kind == kind)
    }

    fn is_new(&self, kind: &str) -> bool {
        self.find(kind).is_some_and(|namespace| namespace.path().is_none())
    }

    fn is_joined(&self, kind: &str) -> bool {
        self.find(kind).is_some_and(|namespace| namespace.path().is_some())
    }

    fn check(&self, config: &Config, linux: &Linux) -> Result<()> {
        let needs = |is_set: bool, member: &str, kind: &str, has: bool| {
            if is_set && !has {
                Err(Error::new(format_args!("{member}: needs a namespace of type {kind}")))
            } else {
                Ok(())
            }
        };
        let has_uts = self.find("uts").is_some();
        needs(config.hostname.is_some(), "hostname", "uts", has_uts)?;
        needs(config.domainname.is_some(), "domainname", "uts", has_uts)?;
        let has_offsets = !linux.time_offsets.is_empty();
        needs(has_offsets, "linux.timeOffsets", "time", self.is_new("time"))?;
        let has_maps = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
        needs(
            has_maps,
            "linux.uidMappings, linux.gidMappings",
            "user",
            self.find("user").is_some(),
        )?;
        for key in linux.sysctl.keys() {
            if let Some(kind) = sysctl_kind(key) {
                needs(true, &format!("linux.sysctl {key:?}"), kind, self.find(kind).is_some())?;
            }
        }
        let other = |(key, value): (&String, &String)| {
            key.replace('/', ".") == "kernel.domainname"
                && Some(value) != config.domainname.as_ref()
        };
        if config.domainname.is_some() && linux.sysctl.iter().any(other) {
            return Err(Error::new("domainname, linux.sysctl: two values of kernel.domainname"));
        }
        let has_devices = !linux.net_devices.is_empty();
        needs(has_devices, "linux.netDevices", "network", self.find("network").is_some())?;
        if self.is_new("user") && (linux.uid_mappings.is_empty() || linux.gid_mappings.is_empty()) {
            return Err(Error::new(
                "linux.uidMappings, linux.gidMappings: a new user namespace needs both",
            ));
        }
        Ok(())
    }

    /// The settings of new namespaces.
    fn settings(&self, config: &Config, linux: &Linux) -> Result<Vec<Opt>> {
        let mut options = Vec::new();
        options.extend(config.hostname.as_ref().map(|name| Opt::new("--hostname", name)));
        options.extend(config.domainname.as_ref().map(|name| Opt::new("--domainname", name)));
        for (clock, offset) in &linux.time_offsets {
            let option = match clock.as_str() {
                "boottime" => "--boottime",
                "monotonic" => "--monotonic",
                _ => {
                    return Err(Error::new(format_args!(
                        "linux.timeOffsets: unknown clock {clock:?}"
                    )));
                }
            };
            options.push(Opt::new(option, seconds(*offset)?));
        }
        if self.is_new("user") {
            // jc-rootfs opens files of the host as the caller, and then becomes root of the namespace.
            options.extend(enters_as_other(linux).then(|| Opt::flag("--keep-caps")));
            options
                .extend(linux.uid_mappings.iter().map(|map| Opt::new("--map-users", range(map))));
            options
                .extend(linux.gid_mappings.iter().map(|map| Opt::new("--map-groups", range(map))));
        }
        Ok(options)
    }

    /// Whether jc-cgroup starts the child, which spares a move into the group. A user namespace and a PID namespace
    /// that exists are entered by jc-unshare, which then starts the child.
    pub fn group_forks(&self) -> bool {
        self.find("user").is_none() && !self.is_joined("pid")
    }

    /// The link for the namespaces that jc-cgroup, the link `group`, does not make.
    pub fn link(&self, group: Option<&mut Link>, context: &Context<'_>) -> Result<Option<Link>> {
        let group = group.filter(|_| self.group_forks());
        let is_early = context.descriptors.network.is_some();
        let mut options = Vec::new();
        for kind in KINDS {
            let is_sent = kind.name == "network" && is_early;
            match (self.find(kind.name), kind.option) {
                (Some(namespace), _) if namespace.path().is_some() => {
                    let path = namespace.path().map(|path| path.as_os_str().to_owned());
                    let mut spec = std::ffi::OsString::from(format!("{}=", kind.link_name));
                    spec.push(path.unwrap_or_default());
                    options.push(Opt::new("--join-ns", spec));
                }
                (Some(_), Some(option)) if !is_sent => options.push(Opt::flag(option)),
                _ => {}
            }
        }
        options.extend(self.options.iter().cloned());
        // Other runtimes bring it up too, so that programs may use 127.0.0.1.
        let is_made_here = self.is_new("network") && !is_early;
        options.extend(is_made_here.then(|| Opt::flag("--loopback")));
        match group {
            Some(group) => options = spare_unshare(group, options),
            None => options.push(Opt::flag("--no-wait")),
        }
        if options.is_empty() {
            return Ok(None);
        }
        options.push(Opt::new("--status-fd", context.descriptors.events.to_string()));
        Ok(Some(Link::new("jc-unshare", options)))
    }

    /// The kinds that jc-unshare joins for `exec`; jc-rootfs joins the others.
    pub fn joined(&self) -> Vec<&'static str> {
        let kinds = KINDS.iter().filter(|kind| !["mount", "pid"].contains(&kind.name));
        kinds.filter(|kind| self.find(kind.name).is_some()).map(|kind| kind.link_name).collect()
    }
}

/// Whether this program can create the network namespace while the chain starts. A user namespace of the container owns
/// its other namespaces.
pub fn creates_network_early(linux: &Linux) -> Result<bool> {
    let is_new = |one: &Namespace| one.kind == "network" && one.path().is_none();
    let has_user = linux.namespaces.iter().any(|one| one.kind == "user");
    Ok(linux.namespaces.iter().any(is_new) && !has_user && Sender::is_possible()?)
}

/// Whether the caller is another user than root in the new user namespace, which has a root.
pub fn enters_as_other(linux: &Linux) -> bool {
    let is_new = |one: &Namespace| one.kind == "user" && one.path().is_none();
    // Root of the namespace, as the caller's ID or another one.
    let root = |maps: &[IdMapping]| maps.iter().find(|map| map.inside == 0).map(|map| map.outside);
    let roots = root(&linux.uid_mappings).zip(root(&linux.gid_mappings));
    let own = (geteuid().as_raw(), getegid().as_raw());
    linux.namespaces.iter().any(is_new) && roots.is_some_and(|roots| roots != own)
}

/// The kind of namespace to which a setting belongs (namespaces(7)). Without one of the container, the setting would be
/// the host's. jc-rootfs refuses settings of no namespace.
fn sysctl_kind(key: &str) -> Option<&'static str> {
    const KINDS: [(&str, &str); 6] = [
        ("net.", "network"),
        ("fs.mqueue.", "ipc"),
        ("kernel.msg", "ipc"),
        ("kernel.sem", "ipc"),
        ("kernel.shm", "ipc"),
        ("kernel.domainname", "uts"),
    ];
    let key = key.replace('/', ".");
    KINDS.iter().find(|(start, _)| key.starts_with(start)).map(|(_, kind)| *kind)
}

/// A range as jc-unshare takes it.
pub fn range(map: &IdMapping) -> String {
    format!("{}:{}:{}", map.inside, map.outside, map.size)
}

/// An offset as jc-unshare takes it: the nanoseconds count towards the future.
fn seconds(TimeOffset { secs, nanosecs }: TimeOffset) -> Result<String> {
    match nanosecs {
        0 => Ok(secs.to_string()),
        1..1_000_000_000 => Ok(format!("{secs}.{nanosecs:09}")),
        _ => Err(Error::new("linux.timeOffsets: nanosecs is not below one second")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nanoseconds_count_towards_the_future() {
        for (secs, nanosecs, text) in
            [(5, 0, "5"), (0, 1, "0.000000001"), (-1, 500_000_000, "-1.500000000"), (-2, 0, "-2")]
        {
            assert_eq!(seconds(TimeOffset { secs, nanosecs }).unwrap(), text);
        }
        assert!(seconds(TimeOffset { secs: 0, nanosecs: 1_000_000_000 }).is_err());
    }
}
