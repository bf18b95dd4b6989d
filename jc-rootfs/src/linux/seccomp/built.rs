//! The output of the build script: the table of system calls and the default filter.

use nix::libc::sock_filter;

use super::compiler::syscalls::Call;

include!(concat!(env!("OUT_DIR"), "/seccomp.rs"));
