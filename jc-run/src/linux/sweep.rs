//! Removal of the remains of killed links.

use std::process::{Command, Stdio};

use jc_unshare::exec::locate_tool;

/// The links that leave objects when they are killed, and the action that removes the objects.
const ACTIONS: [(&str, &str); 2] = [("jc-cgroup", "--list"), ("jc-net", "--gc")];

/// Executes the actions. Errors are ignored: a caller without the permission, or without the link, has left no
/// objects.
pub fn sweep_links() {
    for (link, action) in ACTIONS {
        let Ok(program) = locate_tool(link.as_ref()) else { continue };
        let mut command = Command::new(program);
        command.arg(action).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let _: std::io::Result<_> = command.status();
    }
}
