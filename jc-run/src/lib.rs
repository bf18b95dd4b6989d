//! The reference pipeline and the state directory. `jc-run` composes a chain of the other programs, runs the chain
//! and records the container; the small programs read the record.

// Other systems mount, publish and record nothing.
#![cfg_attr(not(target_os = "linux"), allow(dead_code))]

use jc_unshare::Tool;

mod image;
mod input;
mod link;
// On other systems the file portable.rs takes the place of the module.
#[cfg_attr(not(target_os = "linux"), path = "portable.rs")]
mod linux;
mod options;
#[cfg(test)]
pub mod portable;
mod shell;
mod source;

pub use linux::{command, execute, list, logs, oci, remove, run, stop};

/// The name and contract of the program.
pub const TOOL: Tool = Tool::link("jc-run");
