//! The programs on Linux.

mod actions;
mod addresses;
mod args;
mod bridge;
mod conntrack;
mod device;
mod dns;
mod egress;
mod enter;
mod forward;
pub mod fuzz;
mod host;
mod lease;
mod link;
mod lock;
mod message;
mod mode;
mod net;
mod netlink;
mod nft;
mod pasta;
mod ports;
mod record;
mod route;
mod rules;
mod status;
mod subnet;
mod sys;
mod sysctl;
mod wait;

use std::process::ExitCode;

use jc_unshare::{Result, require_program};

pub use args::Args;

/// Runs an action, or executes the program in its network: in place of this process, or in a child, whose exit code is
/// the result.
pub fn run(args: Args) -> Result<ExitCode> {
    if args.is_action() {
        args.check_action()?;
        if let Some((device, pid)) = args.move_device.as_ref().zip(args.to) {
            return device.move_to(pid).map(|()| ExitCode::SUCCESS);
        }
        return net::act(&args);
    }
    require_program(&args.program)?;
    net::run(&args)
}

/// Runs the program behind the list of hosts. Returns the exit code of the program.
pub fn run_egress(args: egress::Args) -> Result<ExitCode> {
    egress::run(&args)
}
