//! Removal of the remains of killed links.

use std::process::{Command, Stdio};

use jc_unshare::exec::locate_tool;

/// The links that leave objects when they are killed, and the action that removes the objects.
const ACTIONS: [(&str, &str); 2] = [("jc-cgroup", "--list"), ("jc-net", "--gc")];

/// Executes the actions. Returns the names of frozen groups, which `jc-cgroup --list` marks. Errors are ignored: a
/// caller without the permission, or without the link, has left no objects.
pub fn sweep_links() -> Vec<String> {
    let mut frozen = Vec::new();
    for (link, action) in ACTIONS {
        let Ok(program) = locate_tool(link.as_ref()) else { continue };
        let mut command = Command::new(program);
        command.arg(action).stdin(Stdio::null()).stderr(Stdio::null());
        let Ok(output) = command.output() else { continue };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let groups = text.lines().filter_map(|line| line.strip_suffix("\tfrozen"));
        frozen.extend(groups.filter_map(|line| Some(line.split('\t').next()?.to_owned())));
    }
    frozen
}
