//! `linux.cgroupsPath` and `linux.resources`, and the link that makes the cgroup.

use jc_unshare::{Result, userns};
use serde_json::{Value, json};

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
    let mut resources = linux.resources.clone().unwrap_or_default();
    // Only root of the initial user namespace may change rules of devices (devices.rst, bpf(2)).
    let rules = userns::is_initial()?.then(|| rules(resources.remove("devices")));
    resources.extend(rules.map(|rules| ("devices".to_owned(), rules)));
    if !resources.is_empty() {
        options.push(Opt::new("--resources", Value::Object(resources).to_string()));
    }
    if namespaces.group_forks() {
        options.extend(namespaces.has_new_pid().then(|| Opt::flag("-p")));
        options.push(Opt::flag("--no-wait"));
    } else {
        options.push(Opt::flag("--exec"));
    }
    options.push(Opt::new("--status-fd", context.descriptors.events.to_string()));
    Ok(Link::new("jc-cgroup", options))
}

/// The rules of the devices controller: all is denied, then the rules of the configuration, then the devices that
/// each container has (config-linux.md, "Default Devices").
fn rules(configured: Option<Value>) -> Value {
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    if let Some(Value::Array(configured)) = configured {
        rules.extend(configured);
    }
    // mknod(2) of any device is allowed: the rules decide about its use.
    for kind in ["c", "b"] {
        rules.push(json!({ "allow": true, "type": kind, "access": "m" }));
    }
    // null, zero, full, random, urandom, tty, console, and ptmx.
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
        let rule =
            json!({ "allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm" });
        rules.push(rule);
    }
    rules.push(json!({ "allow": true, "type": "c", "major": 136, "access": "rwm" }));
    json!(rules)
}
