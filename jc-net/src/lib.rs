//! The `jc-net` tool: the network namespace and what is plugged into it.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use jc_unshare::{Result, Tool, require_program};

#[cfg(target_os = "linux")]
mod net;
#[cfg(target_os = "linux")]
mod netlink;

/// The tool's name and contract.
pub const TOOL: Tool = Tool::link("jc-net");

/// Give PROG a network of its own, then run it
#[derive(Debug, Parser)]
#[command(name = "jc-net", version, override_usage = "jc-net [options] [--] PROG [ARG...]")]
pub struct Args {
    /// none: a new network namespace with only loopback, up; host: the caller's network
    #[arg(long, value_name = "MODE", default_value = "none", value_parser = network)]
    network: Network,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, value_name = "PROG")]
    program: Vec<OsString>,
}

/// Which network the program gets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Network {
    /// A new namespace with loopback up.
    None,
    /// The caller's.
    Host,
}

fn network(word: &str) -> std::result::Result<Network, String> {
    match word {
        "none" => Ok(Network::None),
        "host" => Ok(Network::Host),
        "bridge" => Err("not there yet, only none and host are".to_owned()),
        _ => Err("none or host".to_owned()),
    }
}

/// Does what the command line says: this process becomes the payload.
#[cfg(target_os = "linux")]
pub fn run(args: Args) -> Result<ExitCode> {
    require_program(&args.program)?;
    Err(net::enter(&args))
}

/// Says that the platform has no network namespaces.
#[cfg(not(target_os = "linux"))]
pub fn run(args: Args) -> Result<ExitCode> {
    require_program(&args.program)?;
    Ok(TOOL.unsupported("network namespaces"))
}
