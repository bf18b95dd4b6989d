//! The network namespace: the program `jc-net`, which connects it, and the program `jc-egress`, which connects it to
//! the hosts of a list only.

// On other systems the file portable.rs takes the place of the module.
#[cfg_attr(not(target_os = "linux"), path = "portable.rs")]
mod linux;

use jc_unshare::Tool;

pub use linux::{fuzz, run, run_egress};

/// The name and exit codes of `jc-net`.
pub const TOOL: Tool = Tool::link("jc-net");
/// The name and exit codes of `jc-egress`.
pub const EGRESS: Tool = Tool::link("jc-egress");
