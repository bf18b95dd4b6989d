//! Mounts, and the paths inside a root on which they are mounted.

pub mod bind;
pub mod dev;
pub mod fscontext;
pub mod mask;
pub mod proc;
pub mod resolve;
pub mod sysfs;
