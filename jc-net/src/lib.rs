//! The network namespace: the program `jc-net`, which connects it, and the program `jc-egress`, which connects it to
//! the hosts of a list only.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod portable;

use jc_unshare::Tool;

#[cfg(target_os = "linux")]
pub use linux::{Args, fuzz, run, run_egress};
#[cfg(not(target_os = "linux"))]
pub use portable::{Args, run, run_egress};

/// The name and exit codes of `jc-net`.
pub const TOOL: Tool = Tool::link("jc-net");
/// The name and exit codes of `jc-egress`.
pub const EGRESS: Tool = Tool::link("jc-egress");
