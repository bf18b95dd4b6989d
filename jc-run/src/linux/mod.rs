//! The programs on Linux: `jc-run` with its state directory, and the programs that read the state directory.

mod anonymous;
mod base;
mod base_path;
mod bundle;
mod compose;
mod console;
mod detach;
mod dir;
mod events;
pub mod execute;
mod files;
pub mod list;
mod log;
pub mod logs;
mod pull;
pub mod remove;
mod reports;
pub mod run;
mod state;
pub mod stop;
mod supervise;
mod sweep;
mod terminal;
mod tools;
mod tree;
mod watch;
