//! The network namespace: the tools `jc-net`, which connects it, and `jc-egress`, which lets connections to
//! the hosts of a list through.

#[cfg(target_os = "linux")]
mod actions;
#[cfg(target_os = "linux")]
mod addresses;
#[cfg(target_os = "linux")]
mod args;
#[cfg(target_os = "linux")]
mod bridge;
#[cfg(target_os = "linux")]
mod conntrack;
#[cfg(target_os = "linux")]
mod dns;
#[cfg(target_os = "linux")]
mod egress;
#[cfg(target_os = "linux")]
mod enter;
#[cfg(target_os = "linux")]
mod forward;
#[cfg(target_os = "linux")]
pub mod fuzz;
#[cfg(target_os = "linux")]
mod host;
#[cfg(target_os = "linux")]
mod lease;
#[cfg(target_os = "linux")]
mod link;
#[cfg(target_os = "linux")]
mod lock;
#[cfg(target_os = "linux")]
mod message;
#[cfg(target_os = "linux")]
mod mode;
#[cfg(target_os = "linux")]
mod net;
#[cfg(target_os = "linux")]
mod netlink;
#[cfg(target_os = "linux")]
mod nft;
#[cfg(target_os = "linux")]
mod pasta;
#[cfg(target_os = "linux")]
mod ports;
#[cfg(target_os = "linux")]
mod record;
#[cfg(target_os = "linux")]
mod route;
#[cfg(target_os = "linux")]
mod rules;
#[cfg(target_os = "linux")]
mod status;
#[cfg(target_os = "linux")]
mod subnet;
#[cfg(target_os = "linux")]
mod sys;
#[cfg(target_os = "linux")]
mod sysctl;
#[cfg(target_os = "linux")]
mod wait;

use std::process::ExitCode;

use jc_unshare::{Result, Tool};

#[cfg(target_os = "linux")]
pub use args::Args;

/// The tool's name and contract.
pub const TOOL: Tool = Tool::link("jc-net");
/// The name and contract of the other tool.
pub const EGRESS: Tool = Tool::link("jc-egress");

/// Does what the command line says: this process becomes the payload, or returns its exit code.
#[cfg(target_os = "linux")]
pub fn run(args: Args) -> Result<ExitCode> {
    if args.is_action() {
        args.check_action()?;
        return net::act(&args);
    }
    jc_unshare::require_program(&args.program)?;
    net::run(&args)
}

/// Does what the command line of `jc-egress` says. Returns the payload's exit code.
#[cfg(target_os = "linux")]
pub fn run_egress(args: egress::Args) -> Result<ExitCode> {
    egress::run(&args)
}

/// Says that the platform has no network namespaces.
#[cfg(not(target_os = "linux"))]
pub fn run_egress(_: Args) -> Result<ExitCode> {
    Ok(EGRESS.unsupported("network namespaces"))
}

/// A command line, on a platform that has no network namespaces.
#[cfg(not(target_os = "linux"))]
#[derive(Debug, clap::Parser)]
#[command(name = "jc-net", version)]
pub struct Args {
    /// The options and the program
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<std::ffi::OsString>,
}

/// Says that the platform has no network namespaces.
#[cfg(not(target_os = "linux"))]
pub fn run(_: Args) -> Result<ExitCode> {
    Ok(TOOL.unsupported("network namespaces"))
}
