//! The link that assembles the root, and executes the program.

use std::path::{Path, PathBuf};

use jc_unshare::{Error, Result};

use super::context::Context;
use super::{mounts, namespaces, process};
use crate::link::{Link, Opt};
use crate::linux::oci::config::{Config, Hook, Linux};

/// The link for a new container.
pub fn link(config: &Config, context: &Context<'_>, warnings: &mut Vec<String>) -> Result<Link> {
    let (linux, root) = (config.linux(), config.root()?);
    let numbers = context.descriptors;
    let mut options = vec![Opt::flag("--bare")];
    options.extend(numbers.mounts.map(|fd| Opt::new("--gate", format!("mounts={fd}"))));
    options.push(Opt::new("--gate", format!("exec={}", numbers.exec)));
    options.push(Opt::new("--status-fd", numbers.events.to_string()));
    options.extend(numbers.network.map(|fd| Opt::new("--net-fd", fd.to_string())));
    options.extend(context.parent.map(|pid| Opt::new("--die-with-parent", pid.to_string())));
    let mounts = linux.namespaces.iter().find(|namespace| namespace.kind == "mount");
    // Without a namespace in the list, the container has that of the runtime (config-linux.md, "Namespaces").
    let shared = match mounts {
        Some(namespace) => namespace.path().map(PathBuf::as_path),
        None => Some(Path::new("/proc/self/ns/mnt")),
    };
    options.extend(shared.map(|path| Opt::new("--mount-namespace", path)));
    options.extend(namespaces::enters_as_other(linux).then(|| Opt::flag("--become-root")));
    options.extend(root.readonly.then(|| Opt::flag("--read-only")));
    options.extend(propagation(&linux.rootfs_propagation)?);
    options.extend(mounts::options(&config.mounts, linux, context.bundle)?);
    for (key, value) in &linux.sysctl {
        options.push(Opt::new("--sysctl", format!("{key}={value}")));
    }
    let program = config.process()?;
    options.extend(process::options(program, context, warnings)?);
    if let Some(personality) = &linux.personality {
        options.push(Opt::new("--personality", domain(&personality.domain, &personality.flags)?));
    }
    options
        .extend(linux.memory_policy.as_ref().map(|it| Opt::new("--memory-policy", it.to_string())));
    options.extend(filter(linux, context));
    let hooks =
        [("mounts", &config.hooks.create_container), ("exec", &config.hooks.start_container)];
    for (gate, hooks) in hooks {
        options
            .extend(hooks.iter().map(|hook| self::hook(gate, hook)).collect::<Result<Vec<_>>>()?);
    }
    if hooks.iter().any(|(_, hooks)| !hooks.is_empty()) && linux.seccomp.is_none() {
        options.push(Opt::new("--state", context.state.to_string()));
    }
    let mut link = Link::new("jc-rootfs", options);
    link.operands.push(context.bundle.join(&root.path).into());
    Ok(link)
}

/// The filter, with the state for a listener.
pub fn filter(linux: &Linux, context: &Context<'_>) -> Vec<Opt> {
    let Some(filter) = &linux.seccomp else { return Vec::new() };
    let state = Opt::new("--state", context.state.to_string());
    vec![Opt::new("--seccomp", filter.get()), state]
}

fn hook(gate: &str, hook: &Hook) -> Result<Opt> {
    let json = serde_json::to_string(hook).map_err(|e| Error::new(format_args!("hooks: {e}")))?;
    Ok(Opt::new("--hook", format!("{gate}={json}")))
}

fn propagation(word: &str) -> Result<Option<Opt>> {
    const KNOWN: [&str; 8] = [
        "shared",
        "slave",
        "private",
        "unbindable",
        "rshared",
        "rslave",
        "rprivate",
        "runbindable",
    ];
    match word {
        "" => Ok(None),
        word if KNOWN.contains(&word) => Ok(Some(Opt::new("--root-propagation", word))),
        word => Err(Error::new(format_args!("linux.rootfsPropagation: unknown value {word:?}"))),
    }
}

fn domain(word: &str, flags: &[String]) -> Result<&'static str> {
    if !flags.is_empty() {
        return Err(Error::new("linux.personality: flags are not defined by the specification"));
    }
    match word {
        "LINUX" => Ok("linux"),
        "LINUX32" => Ok("linux32"),
        _ => Err(Error::new(format_args!("linux.personality: unknown domain {word:?}"))),
    }
}
