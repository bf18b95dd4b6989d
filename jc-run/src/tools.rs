//! What the small tools' command lines share.

use clap::{Arg, ArgMatches, Command};
use jc_unshare::Result;

use crate::dir::{self, Found};
use crate::own;
use crate::place::Place;

/// A tool that is told which containers.
pub fn command(name: &'static str, about: &'static str, usage: &'static str) -> Command {
    Command::new(name)
        .version(env!("CARGO_PKG_VERSION"))
        .about(about)
        .override_usage(usage)
        .arg(own::state_dir())
}

/// The operand that names containers, at least one.
pub fn ids() -> Arg {
    let arg = Arg::new("id").value_name("ID").required(true).num_args(1..);
    arg.help("A container's name, its ID, or the beginning of exactly one ID")
}

/// The containers that are named; all must be there.
pub fn named(matches: &ArgMatches) -> Result<Vec<Found>> {
    let ids = matches.get_many::<String>("id").into_iter().flatten();
    dir::find_all(&Place::of(matches)?, ids)
}
