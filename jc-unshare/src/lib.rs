//! The foundation of all packages (errors and exit codes, execution of the rest of a chain, the waiting link), and the
//! program `jc-unshare`, which makes and enters namespaces.

pub mod capability;
pub mod descriptor;
pub mod error;
pub mod escape;
pub mod exec;
pub mod habits;
#[cfg(feature = "image")]
pub mod image;
pub mod interpreter;
// On other systems the file portable.rs takes the place of the module.
#[cfg_attr(not(target_os = "linux"), path = "portable.rs")]
mod linux;
pub mod list;
pub mod lock;
#[cfg(feature = "record")]
pub mod lower;
pub mod mountinfo;
#[cfg(feature = "mutate")]
pub mod mutate;
pub mod on_demand;
pub mod private_dir;
#[cfg(feature = "record")]
pub mod record;
mod remove_tree;
pub mod rlimit;
pub mod shell;
pub mod size;
pub mod store;
pub mod table;
pub mod temporary;
pub mod time;
mod tool;
pub mod userns;

pub use error::{Absent, Context, Error, Kind, Result, exists, read_at_most, strerror};
pub use linux::*;
pub use remove_tree::remove_tree;
pub use tool::{AnyWords, Family, Tool, path_variable, print, require_program};
