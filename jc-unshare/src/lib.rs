//! What every link of a jc chain shares: failing with one line and the right exit code, executing
//! the rest of the command line, and waiting for a child as if one were not there. And the tool
//! `jc-unshare` itself, which owns all namespaces but the mount and network ones.

pub mod capability;
#[cfg(target_os = "linux")]
pub mod descriptor;
pub mod error;
pub mod escape;
#[cfg(target_os = "linux")]
pub mod events;
pub mod exec;
#[cfg(target_os = "linux")]
mod exit;
#[cfg(target_os = "linux")]
pub mod hints;
#[cfg(target_os = "linux")]
pub mod id;
#[cfg(target_os = "linux")]
mod idmap;
#[cfg(target_os = "linux")]
pub mod info;
#[cfg(target_os = "linux")]
pub mod init;
#[cfg(target_os = "linux")]
mod join;
#[cfg(target_os = "linux")]
mod lifeline;
pub mod lock;
#[cfg(feature = "mutate")]
pub mod mutate;
#[cfg(target_os = "linux")]
pub mod namespaces;
#[cfg(target_os = "linux")]
mod next;
pub mod private_dir;
#[cfg(target_os = "linux")]
pub mod process;
#[cfg(target_os = "linux")]
pub mod procfs;
#[cfg(target_os = "linux")]
pub mod program;
#[cfg(feature = "record")]
pub mod record;
mod remove_tree;
#[cfg(target_os = "linux")]
pub mod signals;
pub mod size;
#[cfg(target_os = "linux")]
mod spawn;
pub mod store;
#[cfg(target_os = "linux")]
pub mod supervise;
#[cfg(target_os = "linux")]
pub mod sys;
pub mod table;
pub mod temporary;
#[cfg(target_os = "linux")]
mod terminal;
mod tool;
#[cfg(target_os = "linux")]
pub mod unshare;
pub mod userns;

#[cfg(all(target_os = "linux", target_env = "musl"))]
#[global_allocator]
static HEAP: sys::memory::Checked<sys::heap::Heap> = sys::memory::Checked(sys::heap::Heap::new());

#[cfg(all(target_os = "linux", not(target_env = "musl")))]
#[global_allocator]
static HEAP: sys::memory::Checked<std::alloc::System> = sys::memory::Checked(std::alloc::System);

pub use error::{Absent, Context, Error, Kind, Result, exists, read_at_most, strerror};
#[cfg(target_os = "linux")]
pub use idmap::{Maps, has_ranges};
pub use remove_tree::remove_tree;
pub use tool::{Family, Tool, print, require_program};
