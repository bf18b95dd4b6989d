//! Common parts of the command lines of the small programs.

use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};
use jc_unshare::{Error, Result, Tool};

use super::base_path::BasePath;
use super::dir::{self, RecordedContainer};
use crate::options::args;

/// The command line of a program that reads states.
pub fn command(name: &'static str, about: &'static str, usage: &'static str) -> Command {
    Command::new(name)
        .version(env!("CARGO_PKG_VERSION"))
        .about(about)
        .override_usage(usage)
        .arg(args::state_dir())
}

/// The operand that names containers, at least one.
pub fn ids() -> Arg {
    let arg = Arg::new("id").value_name("ID").required(true).num_args(1..);
    arg.help("A container's name, its ID, or the beginning of exactly one ID")
}

/// The containers of the operands, and the errors of operands that name none, so that a program does the rest.
pub fn named(matches: &ArgMatches) -> Result<(Vec<RecordedContainer>, Vec<Error>)> {
    let ids = matches.get_many::<String>("id").into_iter().flatten();
    dir::find_all(&base_path(matches)?, ids)
}

/// Reports the errors of operands. Returns the exit code.
pub fn outcome(tool: Tool, errors: &[Error]) -> ExitCode {
    errors.iter().fold(ExitCode::SUCCESS, |_, error| tool.fail(error))
}

/// The path of the directory of all state directories.
pub fn base_path(matches: &ArgMatches) -> Result<BasePath> {
    BasePath::new(matches.get_one("state-dir").cloned())
}
