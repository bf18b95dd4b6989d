//! jc-rootfs: the mount namespace, the root with its mounts, and the last steps before the payload.

use jc_unshare::Tool;

pub mod environment;
// On other systems the file portable.rs takes the place of the module.
#[cfg_attr(not(target_os = "linux"), path = "portable.rs")]
mod linux;
pub mod user;

pub use linux::{fuzz, landlock, main, trace};

/// The name of the program and the family of its exit codes.
pub const TOOL: Tool = Tool::link("jc-rootfs");
