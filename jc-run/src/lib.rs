//! The reference pipeline and the state dir: `jc-run` decides what the other tools are to do, lets
//! them do it, and records it; the small tools read that record.

use jc_unshare::Tool;

mod chain;
mod compose;
mod console;
mod detach;
mod dir;
mod events;
pub mod execute;
mod flags;
mod harden;
mod image;
mod input;
pub mod list;
pub mod logs;
mod network;
mod own;
mod plan;
mod process;
mod refused;
pub mod remove;
mod run;
mod signal;
mod source;
mod state;
pub mod stop;
mod supervise;
mod terminal;
mod tools;
mod userns;
mod volumes;
mod watch;

pub use flags::command;
pub use run::run;

/// The tool's name and contract.
pub const TOOL: Tool = Tool::link("jc-run");
