//! Removal of what killed links left.

use std::process::{Command, Stdio};

use jc_unshare::exec::locate_tool;

/// The links that leave something when they are killed, and the action that removes it.
const ACTIONS: [(&str, &str); 2] = [("jc-cgroup", "--list"), ("jc-net", "--gc")];

/// Executes the actions. Errors are passed over: a caller who may not sweep, or has no such link, has left
/// nothing.
pub fn sweep_links() {
    for (link, action) in ACTIONS {
        let Ok(program) = locate_tool(link.as_ref()) else { continue };
        let mut command = Command::new(program);
        command.arg(action).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let _: std::io::Result<_> = command.status();
    }
}
