//! The reference pipeline and the state directory. `jc-run` composes a chain of the other programs, runs the chain
//! and records the container; the small programs read the record.

use jc_unshare::Tool;

#[cfg_attr(
    not(target_os = "linux"),
    expect(dead_code, reason = "nothing is mounted, published or recorded")
)]
mod image;
mod input;
#[cfg_attr(
    not(target_os = "linux"),
    expect(dead_code, reason = "no container is recorded and joined")
)]
mod link;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub mod oci;
#[cfg_attr(
    not(target_os = "linux"),
    expect(dead_code, reason = "only chroot(2) and the payload have options")
)]
mod options;
#[cfg(any(test, not(target_os = "linux")))]
pub mod portable;
mod shell;
mod source;

#[cfg(target_os = "linux")]
pub use linux::{execute, list, logs, remove, run::run, stop};
#[cfg(target_os = "linux")]
pub use options::table::command;
#[cfg(not(target_os = "linux"))]
pub use portable::{command, execute, list, logs, oci, remove, run, stop};

/// The name and contract of the program.
pub const TOOL: Tool = Tool::link("jc-run");
