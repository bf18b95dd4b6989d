//! jc-rootfs: the mount namespace, the root with its mounts, and the last steps before the payload.

use jc_unshare::Tool;

pub mod environment;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod portable;
pub mod user;

#[cfg(target_os = "linux")]
pub use linux::{fuzz, landlock, main, trace};
#[cfg(not(target_os = "linux"))]
pub use portable::main;

/// The name of the program and the family of its exit codes.
pub const TOOL: Tool = Tool::link("jc-rootfs");
