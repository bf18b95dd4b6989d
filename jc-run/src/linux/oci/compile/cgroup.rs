//! `linux.cgroupsPath` and `linux.resources`, and the link that makes the cgroup.

use jc_unshare::{Error, Result, userns};
use serde::Serialize;
use serde_json::{Map, Value};

use super::context::Context;
use super::namespaces::Namespaces;
use crate::link::{Link, Opt};
use crate::linux::oci::config::Linux;

/// The link that makes the group at that path.
pub fn link(
    linux: &Linux,
    path: &str,
    namespaces: &Namespaces,
    context: &Context<'_>,
) -> Result<Link> {
    let mut options = vec![Opt::new("--path", path)];
    let mut others = linux.resources.clone().unwrap_or_default();
    let configured = others.remove("devices");
    // Only root of the initial user namespace may change rules of devices (devices.rst, bpf(2)).
    let devices = userns::is_initial()?.then(|| rules(configured));
    if devices.is_some() || !others.is_empty() {
        let text = serde_json::to_string(&Resources { others, devices });
        let text = text.map_err(|e| Error::new(format_args!("linux.resources: {e}")))?;
        options.push(Opt::new("--resources", text));
    }
    if namespaces.group_forks() {
        options.push(Opt::flag("--no-wait"));
    } else {
        options.push(Opt::flag("--exec"));
    }
    options.push(Opt::new("--status-fd", context.descriptors.events.to_string()));
    Ok(Link::new("jc-cgroup", options))
}

/// `linux.resources` with other rules for devices.
#[derive(Serialize)]
struct Resources {
    #[serde(flatten)]
    others: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    devices: Option<Vec<Rule>>,
}

/// A rule of the devices controller.
#[derive(Serialize)]
#[serde(untagged)]
enum Rule {
    Configured(Value),
    Default {
        allow: bool,
        #[serde(rename = "type")]
        kind: &'static str,
        major: Option<u32>,
        minor: Option<u32>,
        access: &'static str,
    },
}

/// The rules of the devices controller: all is denied, then the rules of the configuration, then the devices that
/// each container has (config-linux.md, "Default Devices").
fn rules(configured: Option<Value>) -> Vec<Rule> {
    let rule =
        |allow, kind, (major, minor), access| Rule::Default { allow, kind, major, minor, access };
    let mut rules = vec![rule(false, "a", (None, None), "rwm")];
    if let Some(Value::Array(configured)) = configured {
        rules.extend(configured.into_iter().map(Rule::Configured));
    }
    // mknod(2) of any device is allowed: the rules decide about its use.
    rules.extend(["c", "b"].map(|kind| rule(true, kind, (None, None), "m")));
    // null, zero, full, random, urandom, tty, console, and ptmx.
    let known = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)];
    let known = known.map(|(major, minor)| (Some(major), Some(minor)));
    // Pseudoterminals have one major number.
    let all = known.into_iter().chain([(Some(136), None)]);
    rules.extend(all.map(|numbers| rule(true, "c", numbers, "rwm")));
    rules
}
