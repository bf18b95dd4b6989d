//! Mounts, and the paths inside a root on which they are mounted.

pub mod bind;
mod copy_up;
pub mod dev;
pub mod fscontext;
pub mod mask;
pub mod node;
pub mod proc;
pub mod resolve;
pub mod sysfs;
pub mod top;
pub mod word;
