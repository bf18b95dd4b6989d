//! Namespaces, processes and the waiting link.

mod allocator;
pub mod cgroupfs;
mod child;
pub mod early_network;
pub mod events;
mod exit;
pub mod hints;
pub mod id;
mod idmap;
pub mod info;
pub mod init;
mod init_pipe;
mod join;
mod lifeline;
pub mod named_file;
pub mod namespaces;
pub mod platform;
mod poll;
pub mod process;
pub mod procfs;
pub mod program;
pub mod rights;
pub mod signals;
mod spawn;
mod step;
pub mod supervise;
pub mod sys;
mod terminal;
pub mod unshare;

pub use idmap::{Extent, Maps, Unmapped, has_ranges};
