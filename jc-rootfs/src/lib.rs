//! The `jc-rootfs` tool: the mount namespace, the root and everything in it, and what must come last
//! before the payload.

use jc_unshare::Tool;

#[cfg(target_os = "linux")]
mod args;
#[cfg(target_os = "linux")]
mod assemble;
#[cfg(target_os = "linux")]
mod bind;
#[cfg(target_os = "linux")]
mod caps;
#[cfg(target_os = "linux")]
mod chroot;
#[cfg(target_os = "linux")]
mod console;
#[cfg(target_os = "linux")]
mod copy;
#[cfg(target_os = "linux")]
mod dev;
mod environment;
#[cfg(target_os = "linux")]
mod fscontext;
#[cfg(target_os = "linux")]
pub mod fuzz;
#[cfg(target_os = "linux")]
pub mod init;
#[cfg(target_os = "linux")]
mod join;
#[cfg(target_os = "linux")]
mod layer;
#[cfg(target_os = "linux")]
mod mask;
#[cfg(target_os = "linux")]
mod mounts;
#[cfg(target_os = "linux")]
mod overlay;
#[cfg(target_os = "linux")]
mod payload;
#[cfg(not(target_os = "linux"))]
mod portable;
#[cfg(target_os = "linux")]
mod proc;
#[cfg(target_os = "linux")]
mod program;
#[cfg(target_os = "linux")]
mod resolve;
#[cfg(target_os = "linux")]
mod rlimit;
#[cfg(target_os = "linux")]
mod root;
#[cfg(target_os = "linux")]
mod seccomp;
#[cfg(target_os = "linux")]
mod spec;
#[cfg(target_os = "linux")]
mod started;
#[cfg(target_os = "linux")]
mod sys;
#[cfg(target_os = "linux")]
mod sysfs;
#[cfg(target_os = "linux")]
mod tool;
mod user;
#[cfg(target_os = "linux")]
mod userns;

#[cfg(target_os = "linux")]
pub use args::Args;
#[cfg(not(target_os = "linux"))]
pub use portable::{Args, command, run};
#[cfg(target_os = "linux")]
pub use tool::run;

/// The tool's name and contract.
pub const TOOL: Tool = Tool::link("jc-rootfs");
