//! Where the record comes from: stdin, a file, jc-pull, or a directory named on the command line.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::ArgMatches;
use jc_unshare::record::{Record, VERSION};
use jc_unshare::{Context, Error, Kind, Result};
use rustix::process::geteuid;

use crate::chain::tool;
use crate::input::one_line;
use crate::userns;

/// Finds the record that the command line means.
pub fn record(matches: &ArgMatches) -> Result<Record> {
    let file = matches.get_one::<PathBuf>("record");
    let image = matches.get_one::<String>("image");
    let rootfs = matches.get_one::<PathBuf>("rootfs");
    match (file, image, rootfs) {
        (Some(file), None, None) => Record::read(file),
        (None, Some(image), None) => pull(image, matches),
        (None, None, Some(rootfs)) => directory(rootfs),
        (None, None, None) => from_stdin(),
        _ => Err(Error::usage("only one of --record, --image and --rootfs can be meant")),
    }
}

fn from_stdin() -> Result<Record> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Err(Error::usage("nothing to run: no record on stdin")
            .hint("jc-pull IMAGE | jc-run, or --image REF, --rootfs DIR, --record FILE"));
    }
    let line = one_line(stdin.as_fd())?;
    if line.is_empty() {
        // What was to write it has said why.
        return Err(Error::new("no record on stdin"));
    }
    Record::parse(&line)
}

/// Runs jc-pull, whose messages go where ours do; without root in a user namespace, as what it has
/// pulled will be run in one.
fn pull(image: &str, matches: &ArgMatches) -> Result<Record> {
    let when = matches.get_one::<String>("pull").map_or("missing", String::as_str);
    let mut words = vec![tool("jc-pull".as_ref())?];
    if !geteuid().is_root() {
        let user = userns::options(matches)?;
        // One ID cannot give files to others.
        let ignore = user.iter().any(|word| word == "--map-root");
        words.extend(ignore.then(|| "--ignore-chown".into()));
        let front = [vec![tool("jc-unshare".as_ref())?], user, vec!["--".into()]].concat();
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

fn directory(path: &Path) -> Result<Record> {
    let rootfs = std::path::absolute(path).on("open", path)?;
    Ok(Record { jc: VERSION, rootfs: Some(rootfs), ..Record::default() })
}
