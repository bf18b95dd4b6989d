//! Where the record comes from: stdin, a file, jc-pull, or a directory named on the command line.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use jc_unshare::record::{Record, VERSION};
use jc_unshare::{Context, Error, Result};
use rustix::fs::{FileType, fstat};

use crate::input::one_line;

/// Finds the record that the command line means; `pull` is asked for that of an image.
pub fn record(matches: &ArgMatches, pull: impl FnOnce(&str) -> Result<Record>) -> Result<Record> {
    let file = matches.get_one::<PathBuf>("record");
    let image = matches.get_one::<String>("image");
    let rootfs = matches.get_one::<PathBuf>("rootfs");
    match (file, image, rootfs) {
        (Some(file), None, None) => Record::read(file),
        (None, Some(image), None) => pull(image),
        (None, None, Some(rootfs)) => directory(rootfs),
        (None, None, None) => from_stdin(),
        _ => Err(Error::usage("--record, --image and --rootfs are mutually exclusive")),
    }
}

fn from_stdin() -> Result<Record> {
    let stdin = io::stdin();
    let nothing = || {
        Error::usage("nothing to run: no record on stdin")
            .hint("jc-pull IMAGE | jc-run, or --image REF, --rootfs DIR, --record FILE")
    };
    if stdin.is_terminal() {
        return Err(nothing());
    }
    let line = one_line(stdin.as_fd())?;
    if line.is_empty() {
        let kind = FileType::from_raw_mode(fstat(&stdin).op("fstat")?.st_mode);
        return Err(match kind {
            // Of /dev/null.
            FileType::CharacterDevice => nothing(),
            // What was to write it has said why.
            _ => Error::new("no record on stdin"),
        });
    }
    Record::parse(&line)
}

fn directory(path: &Path) -> Result<Record> {
    let rootfs = std::path::absolute(path).on("open", path)?;
    Ok(Record { jc: VERSION, rootfs: Some(rootfs), ..Record::default() })
}
