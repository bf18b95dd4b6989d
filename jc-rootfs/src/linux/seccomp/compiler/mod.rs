//! The compiler of seccomp filters. The build script includes this module as well, to compile the default
//! filter, so the module uses only the standard library.

pub mod abi;
pub mod bpf;
pub mod compile;
pub mod default;
mod outcomes;
pub mod rules;
pub mod syscalls;
