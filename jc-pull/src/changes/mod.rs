//! Changes as data: the upper directories of overlays.

mod apply;
mod base;
pub mod cli;
mod conflict;
mod container;
mod delta;
mod difference;
mod discard;
mod freeze;
mod layer;
mod list;
mod lookup;
mod marks;
mod operand;
mod pattern;
mod staging;
#[cfg(test)]
mod tests;
mod text;
mod upper;

pub use base::Base;
pub use freeze::Frozen;
pub use layer::{LayerOptions, write_over, write_tree};
pub use marks::Marks;
pub use operand::{Opened, Operand, open};
pub use upper::{Upper, components};
