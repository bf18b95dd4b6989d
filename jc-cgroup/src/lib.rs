//! The `jc-cgroup` program, which makes, limits, joins, measures and removes one cgroup.

// On other systems the file portable.rs takes the place of the module.
#[cfg_attr(not(target_os = "linux"), path = "portable.rs")]
mod linux;

pub use linux::run;

/// The name and contract of the program.
pub const TOOL: jc_unshare::Tool = jc_unshare::Tool::link("jc-cgroup");
