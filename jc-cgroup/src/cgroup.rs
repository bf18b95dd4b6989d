//! What the tool does on Linux.

use std::process::ExitCode;

use jc_unshare::supervise::spawn;
use jc_unshare::{Result, exec};

use crate::group::Group;
use crate::limits::Limit;
use crate::{Args, TOOL};

/// Makes the group, runs the program in it, and removes the group with all that is still in it.
pub fn supervise(args: &Args) -> Result<ExitCode> {
    let limits: Vec<Limit> = [args.memory.map(Limit::Memory), args.pids.map(Limit::Pids)]
        .into_iter()
        .flatten()
        .collect();
    let group = Group::make(&limits)?;
    let exit = spawn(TOOL, 0, group.v2(), |_| match group.join_v1() {
        Ok(()) => exec::exec(&args.program),
        Err(error) => error,
    })
    .and_then(|child| child.wait());
    let removed = group.remove();
    let exit = exit?;
    removed.map(|()| exit.into())
}
