//! `jc-run`: from the command line to the end of a container.

use std::process::ExitCode;

use clap::ArgMatches;
use jc_unshare::{Result, id};

use super::base_path::BasePath;
use super::compose::compose;
use super::console::Console;
use super::detach::detach;
use super::events::Events;
use super::pull::pull;
use super::supervise::{Container, Stdio};
use super::terminal::Terminal;
use crate::options::{LifeOptions, Options};
use crate::{TOOL, source};

/// Runs the container of a command line.
pub fn run(matches: &ArgMatches) -> Result<ExitCode> {
    let options = Options::parse(matches)?;
    let life = &options.life;
    // This check comes first: a number that is not open yet may become that of a descriptor which this process opens.
    let events = Events::open(life.status_fd)?;
    let base_path = BasePath::new(life.state_dir.clone())?;
    let pulled = |image: &str, policy: &str| pull(image, policy, &options.namespaces);
    let record = source::read(&options.source, pulled)?;
    let mut bundle = compose(&options, &record, &id::random()?, &base_path)?;
    bundle.chain = bundle.chain.locate()?;
    if let Some(form) = options.print {
        return bundle.chain.print(form, || bundle.to_shell());
    }
    let has_terminal = life.has_terminal && !life.detached;
    let terminal = has_terminal.then(Terminal::open).transpose()?;
    let mut container = Container::create(&base_path, bundle, events)?;
    match terminal {
        _ if life.detached => detach(container, stdio(life)),
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

/// The standard streams of a detached payload.
fn stdio(life: &LifeOptions) -> Stdio {
    match (life.has_terminal, life.interactive) {
        (true, _) => Stdio::LoggedTerminal,
        (false, true) => Stdio::LogsAndFifo,
        (false, false) => Stdio::Logs,
    }
}
