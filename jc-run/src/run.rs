//! `jc-run`: what is done with a plan.

use std::process::ExitCode;

use clap::ArgMatches;
use jc_unshare::{Result, id};

use crate::compose::compose;
use crate::console::Console;
use crate::detach::detach;
use crate::events::Events;
use crate::place::Place;
use crate::pull::pull;
use crate::supervise::{Container, Stdio};
use crate::{TOOL, refused, source, terminal};

/// Does what the command line says.
pub fn run(matches: &ArgMatches) -> Result<ExitCode> {
    refused::check(matches)?;
    // First: a descriptor that the caller has not opened must not turn out to be one of ours.
    let events = Events::open(matches.get_one("status-fd").copied())?;
    let place = Place::of(matches)?;
    let record = source::record(matches, |image| pull(image, matches))?;
    let mut plan = compose(matches, &record, &id::random()?, &place)?;
    plan.chain = plan.chain.locate()?;
    if let Some(form) = matches.get_one::<String>("print") {
        return plan.chain.print(form, || plan.to_shell());
    }
    let flag = |name| matches.get_flag(name);
    let has_terminal = flag("tty") && !flag("detach");
    let terminal = has_terminal.then(terminal::Terminal::open).transpose()?;
    let mut container = Container::make(&place, plan, events)?;
    match terminal {
        _ if flag("detach") => detach(container, stdio(flag("tty"), flag("interactive"))),
        Some(terminal) => {
            let path = container.path("console");
            let console = container.or_remove(Console::listen(&path))?;
            terminal.attend(TOOL, (console, &path), || {
                container.run(Stdio::Callers, || Ok(())).map(|exit| exit.code())
            })
        }
        None => container.run(Stdio::Callers, || Ok(())).map(|exit| exit.end()),
    }
}

/// What a detached payload reads and writes.
fn stdio(has_terminal: bool, interactive: bool) -> Stdio {
    match (has_terminal, interactive) {
        (true, _) => Stdio::LoggedTerminal,
        (false, true) => Stdio::LogsAndFifo,
        (false, false) => Stdio::Logs,
    }
}
