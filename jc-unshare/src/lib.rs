//! What every link of a jc chain shares: failing with one line and the right exit code, executing
//! the rest of the command line, and waiting for a child as if one were not there.

pub mod error;
#[cfg(feature = "record")]
pub mod record;
mod tool;

pub use error::{Context, Error, Kind, Result, strerror};
pub use tool::{Family, Tool, print, require_program};
