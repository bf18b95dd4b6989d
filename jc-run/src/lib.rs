//! The reference pipeline and the state dir: `jc-run` decides what the other tools are to do, lets
//! them do it, and records it; the small tools read that record.

use jc_unshare::Tool;

#[cfg(target_os = "linux")]
mod anonymous;
#[cfg(target_os = "linux")]
mod base;
mod chain;
#[cfg(target_os = "linux")]
mod compose;
#[cfg(target_os = "linux")]
mod console;
#[cfg(target_os = "linux")]
mod detach;
#[cfg(target_os = "linux")]
mod dir;
#[cfg(target_os = "linux")]
mod events;
#[cfg(target_os = "linux")]
pub mod execute;
#[cfg(target_os = "linux")]
mod files;
mod flags;
#[cfg(target_os = "linux")]
mod harden;
#[cfg_attr(
    not(target_os = "linux"),
    expect(dead_code, reason = "nothing is mounted, published or recorded")
)]
mod image;
mod input;
#[cfg(target_os = "linux")]
pub mod list;
#[cfg_attr(
    not(target_os = "linux"),
    expect(dead_code, reason = "no container is detached, and so none has a log")
)]
mod log;
#[cfg(target_os = "linux")]
pub mod logs;
#[cfg(target_os = "linux")]
mod network;
mod own;
#[cfg(target_os = "linux")]
mod place;
#[cfg(target_os = "linux")]
mod plan;
#[cfg(any(test, not(target_os = "linux")))]
pub mod portable;
#[cfg(target_os = "linux")]
mod pull;
mod refused;
#[cfg(target_os = "linux")]
pub mod remove;
#[cfg(target_os = "linux")]
mod reports;
#[cfg(target_os = "linux")]
mod run;
mod source;
#[cfg(target_os = "linux")]
mod state;
#[cfg(target_os = "linux")]
pub mod stop;
#[cfg(target_os = "linux")]
mod supervise;
#[cfg(target_os = "linux")]
mod terminal;
#[cfg(target_os = "linux")]
mod tools;
#[cfg(target_os = "linux")]
mod userns;
#[cfg(target_os = "linux")]
mod volumes;
#[cfg(target_os = "linux")]
mod watch;

#[cfg(target_os = "linux")]
pub use flags::command;
#[cfg(not(target_os = "linux"))]
pub use portable::{command, execute, list, logs, remove, run, stop};
#[cfg(target_os = "linux")]
pub use run::run;

/// The tool's name and contract.
pub const TOOL: Tool = Tool::link("jc-run");
