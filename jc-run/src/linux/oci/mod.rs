//! `jc-oci`: the OCI runtime interface. A bundle's `config.json` is compiled to a chain of links, and the chain runs.

mod args;
mod chain;
mod compile;
mod config;
mod create;
mod delete;
mod environment;
mod events;
mod exec;
mod features;
mod group;
mod handover;
mod hooks;
mod kill;
mod list;
mod log;
mod ps;
mod run;
mod shared;
mod spec;
mod start;
mod state;
mod stored;
mod systemd;
mod update;
mod wait;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches};
use jc_unshare::platform::map_ahead;
use jc_unshare::{Error, Result, print};

use args::{Args, Named, Verb, WORDS, is_help_asked};
use environment::{Environment, TOOL};

/// The exit status of a command that fails.
const FAILED: u8 = 1;

/// The exit status of `exec` that fails, which differs from that of most programs.
const EXEC_FAILED: u8 = 255;

/// Parses the command line, and runs the command.
pub fn main() -> ExitCode {
    TOOL.begin();
    map_ahead();
    let args = match parse() {
        Ok(args) => args,
        Err(outcome) => return outcome,
    };
    let code = if matches!(args.verb, Verb::Exec(_)) { EXEC_FAILED } else { FAILED };
    let environment = match Environment::new(&args) {
        Ok(environment) => environment,
        Err(error) => return fail(&error),
    };
    run(args.verb, &environment).unwrap_or_else(|error| {
        environment.log.error(TOOL, error);
        code.into()
    })
}

fn fail(error: &Error) -> ExitCode {
    TOOL.report(error);
    FAILED.into()
}

fn parse() -> std::result::Result<Args, ExitCode> {
    let command = if is_help_asked() { Args::with_help() } else { Args::command() };
    let matches = command.try_get_matches_from(WORDS.iter());
    matches.and_then(|matches| Args::from_arg_matches(&matches)).map_err(|error| {
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                let outcome = print(error.render().to_string()).map(|()| ExitCode::SUCCESS);
                outcome.unwrap_or_else(|error| fail(&error))
            }
            _ => fail(&Error::usage(first_paragraph(&error.render().to_string()))),
        }
    })
}

/// The message of clap on one line.
fn first_paragraph(rendered: &str) -> String {
    let text = rendered.strip_prefix("error: ").unwrap_or(rendered);
    let lines: Vec<&str> =
        text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    lines.join(" ")
}

/// Runs a command.
fn run(verb: Verb, environment: &Environment) -> Result<ExitCode> {
    let root = environment.root.as_deref();
    let done = match verb {
        Verb::Create(Named(options)) => create::command(environment, &options),
        Verb::Run(Named(options)) => return run::command(environment, &options),
        Verb::Exec(Named(options)) => return exec::command(environment, &options),
        Verb::Start(Named(options)) => start::command(environment, &options.id),
        Verb::State(Named(options)) => list::state(root, &options.id),
        Verb::Kill(Named(options)) => kill::command(environment, &options),
        Verb::Delete(Named(options)) => delete::command(environment, &options),
        Verb::Pause(Named(options)) => update::freeze(environment, &options.id, true),
        Verb::Resume(Named(options)) => update::freeze(environment, &options.id, false),
        Verb::Update(Named(options)) => update::command(environment, &options),
        Verb::Ps(Named(options)) => ps::command(environment, &options),
        Verb::List(Named(options)) => list::list(root, &options),
        Verb::Events(Named(options)) => events::command(environment, &options),
        Verb::Features => print(format!("{:#}\n", features::document())),
        Verb::Spec(Named(options)) => spec::write(&options),
        Verb::Checkpoint(_) | Verb::Restore(_) => {
            Err(Error::new("checkpoint, restore: not supported by this runtime"))
        }
    };
    done.map(|()| ExitCode::SUCCESS)
}
