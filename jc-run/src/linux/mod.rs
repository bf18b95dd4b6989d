//! The programs on Linux: `jc-run` with its state directory, and the programs that read the state directory.

mod anonymous;
mod base;
mod base_path;
mod bundle;
mod compose;
pub(crate) mod console;
mod detach;
mod dir;
mod events;
pub mod execute;
pub(crate) mod files;
pub mod list;
mod log;
pub mod logs;
pub mod oci;
mod pipe;
mod pull;
pub mod remove;
mod reports;
mod run;
pub(crate) mod state;
pub mod stop;
mod stored;
mod supervise;
mod sweep;
pub(crate) mod terminal;
mod tools;
mod tree;
pub(crate) mod variables;
mod watch;

pub use crate::options::table::command;
pub use pipe::peek;
pub use run::run;
