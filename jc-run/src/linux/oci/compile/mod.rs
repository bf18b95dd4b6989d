//! The chain for a configuration: `jc-cgroup`, `jc-unshare` and `jc-rootfs` with options, as data.

mod capabilities;
mod cgroup;
mod context;
mod mounts;
mod namespaces;
mod process;
mod rootfs;

use std::ffi::OsString;

use jc_unshare::{Error, Result};

use super::config::{Config, Process};
use crate::link::{Chain, Link, Opt};
pub use context::{Context, Descriptors};
use namespaces::Namespaces;
pub use namespaces::creates_network_early;

/// A chain, and warnings about what the specification lets a runtime leave out.
#[derive(Debug)]
pub struct Compiled {
    pub links: Vec<Link>,
    pub payload: Vec<OsString>,
    pub warnings: Vec<String>,
}

impl Compiled {
    /// Joins links and payload.
    pub fn chain(self) -> Chain {
        Chain::new(self.links, self.payload)
    }
}

/// The chain that creates a container.
pub fn create(config: &Config, context: &Context<'_>) -> Result<Compiled> {
    let linux = config.linux();
    if linux.intel_rdt.is_some() {
        return Err(Error::new("linux.intelRdt: not supported by this runtime"));
    }
    let namespaces = Namespaces::parse(config)?;
    let mut warnings = Vec::new();
    let mut group =
        context.cgroup.map(|path| cgroup::link(linux, path, &namespaces, context)).transpose()?;
    let unshare = namespaces.link(group.as_mut(), context)?;
    let rootfs = rootfs::link(config, context, &mut warnings)?;
    let block = Opt::new("--block-fd", context.descriptors.scope.to_string());
    let gate = context.waits_for_scope.then(|| Link::new("jc-unshare", vec![block]));
    let links = gate.into_iter().chain(group).chain(unshare).chain([rootfs]).collect();
    let payload = config.process()?.args.iter().map(OsString::from).collect();
    Ok(Compiled { links, payload, warnings })
}

/// A container that a program joins.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    pub config: &'a Config,
    pub pid: u32,
}

/// The chain that executes a program in a container.
pub fn exec(process: &Process, target: Target<'_>, context: &Context<'_>) -> Result<Compiled> {
    let mut warnings = Vec::new();
    let status = Opt::new("--status-fd", context.descriptors.events.to_string());
    let mut links = Vec::new();
    if let Some(path) = context.cgroup {
        let mut options = vec![Opt::new("--join", path), status.clone()];
        options.extend(context.waits_for_thaw.then(|| Opt::flag("--frozen")));
        links.push(Link::new("jc-cgroup", options));
    }
    let joined = Namespaces::parse(target.config)?.joined();
    if !joined.is_empty() {
        let namespaces = format!("{}:{}", target.pid, joined.join(","));
        let mut options = vec![Opt::new("--join", namespaces), status.clone()];
        let linux = target.config.linux();
        options.extend(namespaces::enters_as_other(linux).then(|| Opt::flag("--keep-caps")));
        links.push(Link::new("jc-unshare", options));
    }
    let mut options =
        vec![Opt::new("--join", target.pid.to_string()), Opt::flag("--no-wait"), status];
    options.extend(process::options(process, context, &mut warnings)?);
    options.extend(rootfs::filter(target.config.linux(), context));
    let affinity = process.exec_cpu_affinity.as_ref().filter(|affinity| !affinity.last.is_empty());
    options.extend(affinity.map(|affinity| Opt::new("--cpu-affinity", &affinity.last)));
    links.push(Link::new("jc-rootfs", options));
    let payload = process.args.iter().map(OsString::from).collect();
    Ok(Compiled { links, payload, warnings })
}
