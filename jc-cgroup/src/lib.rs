//! The `jc-cgroup` program, which makes, limits, joins, measures and removes one cgroup.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod portable;

#[cfg(target_os = "linux")]
pub use linux::{Args, run};
#[cfg(not(target_os = "linux"))]
pub use portable::{Args, run};

/// The name and contract of the program.
pub const TOOL: jc_unshare::Tool = jc_unshare::Tool::link("jc-cgroup");
