//! The record: from stdin, a file or jc-pull, or made for a directory of the command line.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::Path;

use jc_unshare::record::{Record, VERSION};
use jc_unshare::{Context, Error, Result};
use rustix::fs::{FileType, fstat};

use crate::input::one_line;
use crate::options::Source;

/// Reads the record from its source. `pull` returns the record of an image.
pub fn read(source: &Source, pull: impl FnOnce(&str, &str) -> Result<Record>) -> Result<Record> {
    match source {
        Source::File(file) => Record::read(file),
        Source::Image(image, policy) => pull(image, policy),
        Source::Directory(rootfs) => directory(rootfs),
        Source::Stdin => from_stdin(),
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
            // The device is one like /dev/null.
            FileType::CharacterDevice => nothing(),
            // The program that writes to the pipe reports why it has no record.
            _ => Error::new("no record on stdin"),
        });
    }
    Record::parse(&line)
}

fn directory(path: &Path) -> Result<Record> {
    let rootfs = std::path::absolute(path).on("open", path)?;
    Ok(Record { jc: VERSION, rootfs: Some(rootfs), ..Record::default() })
}
