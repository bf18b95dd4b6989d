//! The foundation of the end-to-end tests: a sandbox for each test, commands with a time-out, and images made to
//! order.
//!
//! A test file drives the real programs, found through `JC_BIN_DIR` as `make test` sets it:
//!
//! ```no_run
//! use jc_tests::sandbox;
//!
//! sandbox(|s| {
//!     s.jc("jc-unshare").args(["-p", "--", "sh", "-c", "echo $$"]).run().code(0).stdout("1\n");
//! });
//! ```

#![cfg(target_os = "linux")]

pub mod accounts;
mod ann;
#[cfg(target_arch = "x86_64")]
pub mod campaign;
pub mod cgroups;
mod command;
pub mod contract;
pub mod descriptors;
mod diff;
#[cfg(target_arch = "x86_64")]
pub mod faults;
pub mod http;
pub mod image;
mod inside;
pub mod internet;
pub mod lab;
pub mod layer;
pub mod leaks;
#[cfg(target_arch = "x86_64")]
pub mod line;
pub mod memory;
mod processes;
mod programs;
pub mod pty;
pub mod pulled;
mod ran;
pub mod receiver;
pub mod registry;
mod require;
pub mod roots;
mod sandbox;
pub mod screen;
pub mod seccomp;
mod skip;
pub mod state;
pub mod time;
pub mod tree;
mod vm;
pub mod volume;
mod wait;

pub use ann::Ann;
pub use command::{Cmd, Running};
pub use diff::diff;
pub use programs::{bin_dir, workspace_dir};
pub use ran::Ran;
pub use require::require;
pub use sandbox::{Sandbox, sandbox, sandbox_for};
pub use skip::skip;
pub use vm::Machine;
pub use wait::{wait_for, wait_for_line, wait_until, wait_until_idle};
