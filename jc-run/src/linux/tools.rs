//! Common parts of the command lines of the small programs.

use clap::{Arg, ArgMatches, Command};
use jc_unshare::Result;

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

/// The containers of the operands. An absent container is an error.
pub fn named(matches: &ArgMatches) -> Result<Vec<RecordedContainer>> {
    let ids = matches.get_many::<String>("id").into_iter().flatten();
    dir::find_all(&base_path(matches)?, ids)
}

/// The path of the directory of all state directories.
pub fn base_path(matches: &ArgMatches) -> Result<BasePath> {
    BasePath::new(matches.get_one("state-dir").cloned())
}
