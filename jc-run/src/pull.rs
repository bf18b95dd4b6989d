//! The record of an image that the command line names: jc-pull prints it.

use std::process::{Command, Stdio};

use clap::ArgMatches;
use jc_unshare::exec::tool;
use jc_unshare::record::Record;
use jc_unshare::{Context, Error, Kind, Result};
use rustix::process::geteuid;

use crate::userns;

/// Runs jc-pull, whose messages go where ours do; without root in a user namespace, as what it has
/// pulled will be run in one.
pub fn pull(image: &str, matches: &ArgMatches) -> Result<Record> {
    let when = matches.get_one::<String>("pull").map_or("missing", String::as_str);
    let mut words = vec![tool("jc-pull".as_ref())?.into()];
    if !geteuid().is_root() {
        let user = userns::options(matches)?;
        // One ID cannot give files to others.
        let ignore = user.iter().any(|word| word == "--map-root");
        words.extend(ignore.then(|| "--ignore-chown".into()));
        let front = [vec![tool("jc-unshare".as_ref())?.into()], user, vec!["--".into()]].concat();
        words.splice(0..0, front);
    }
    let run = |options: &[&str], stderr: Stdio| {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(options).args(["--", image]);
        command.stdin(Stdio::null()).stderr(stderr).output().op("run jc-pull")
    };
    if when == "missing" {
        // What is there is run without a word.
        let there = run(&["--quiet", "--policy", "never"], Stdio::null())?;
        if there.status.success() {
            return Record::parse(&there.stdout);
        }
    }
    let pulled = run(&["--policy", when], Stdio::inherit())?;
    match pulled.status.success() {
        true => Record::parse(&pulled.stdout),
        false => Err(Error::with_kind(Kind::Quiet, "jc-pull has said why")),
    }
}
