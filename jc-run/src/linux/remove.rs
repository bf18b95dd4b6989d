//! `jc-rm`: removes the records of containers that have ended.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, ArgMatches, Command};
use jc_unshare::{Result, Tool};

use super::dir::RecordedContainer;
use super::state::Status;
use super::{stop, tools};

/// The name and exit codes of the program.
pub const TOOL: Tool = Tool::source("jc-rm");

/// The longest time between the record of a container's end and the end of its supervisor.
const RELEASE: Duration = Duration::from_secs(2);

/// Builds the command line parser.
pub fn command() -> Command {
    let force = Arg::new("force").short('f').long("force").action(ArgAction::SetTrue);
    tools::command("jc-rm", "Remove containers that have ended", "jc-rm [options] ID...")
        .arg(force.help("Kill containers that run"))
        .arg(tools::ids())
}

/// Removes those that have ended, and with `--force` all. The others are errors.
pub fn run(matches: &ArgMatches) -> Result<ExitCode> {
    let (found, mut errors) = tools::named(matches)?;
    let is_forced = matches.get_flag("force");
    if is_forced {
        errors.extend(stop::stop(&found, Some("KILL"), Duration::ZERO)?);
    }
    for container in &found {
        let state = &container.state;
        let removed = if is_forced || state.status == Status::Stopped {
            remove(container)
        } else {
            Err(state.error("still runs").hint("jc-stop ends it, jc-rm -f kills it"))
        };
        errors.extend(removed.err());
    }
    Ok(tools::outcome(TOOL, &errors))
}

/// Removes a container that has ended, unless its supervisor has done that.
fn remove(container: &RecordedContainer) -> Result<()> {
    let deadline = Instant::now() + RELEASE;
    loop {
        if let Some(locked) = container.lock()? {
            return locked.remove();
        }
        if container.is_gone()? {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(container.state.error("another process holds its state directory"));
        }
        sleep(Duration::from_millis(5));
    }
}
