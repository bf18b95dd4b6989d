//! The `jc-rootfs` tool: the mount namespace, the root and everything in it, and what must come last
//! before the payload.

use jc_unshare::Tool;

mod environment;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod portable;
mod user;

#[cfg(target_os = "linux")]
pub use linux::args::Args;
#[cfg(target_os = "linux")]
pub use linux::payload::init;
#[cfg(target_os = "linux")]
pub use linux::{fuzz, run};
#[cfg(not(target_os = "linux"))]
pub use portable::{Args, command, run};

/// The tool's name and contract.
pub const TOOL: Tool = Tool::link("jc-rootfs");
