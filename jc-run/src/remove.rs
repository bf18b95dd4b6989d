//! `jc-rm`: what is recorded of containers goes.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use jc_unshare::{Error, Result, Tool};

use crate::state::Status;
use crate::{stop, tools};

/// The tool's name and contract.
pub const TOOL: Tool = Tool::source("jc-rm");

/// The command line.
pub fn command() -> Command {
    let force = Arg::new("force").short('f').long("force").action(ArgAction::SetTrue);
    tools::command("jc-rm", "Remove containers that have ended", "jc-rm [options] ID...")
        .arg(force.help("Kill those that run"))
        .arg(tools::ids())
}

/// Removes all, or if one runs and is not to be killed, none.
pub fn run(matches: &ArgMatches) -> Result<ExitCode> {
    let found = tools::named(matches)?;
    if matches.get_flag("force") {
        stop::stop(&found, Some("KILL"), Duration::ZERO)?;
    } else if let Some(running) = found.iter().find(|found| found.state.status != Status::Stopped) {
        return Err(Error::new(format_args!("{}: still runs", running.state.id))
            .hint("jc-stop ends it, jc-rm -f kills it"));
    }
    for container in &found {
        // A container that is not kept removes its own.
        if let Some(held) = container.take()? {
            held.remove()?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
