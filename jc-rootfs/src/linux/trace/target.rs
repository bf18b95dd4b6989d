//! `--report`: the file or descriptor of a report.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use jc_unshare::named_file::NamedFile;
use jc_unshare::{Context, Result, info};
use serde_json::Value;

use super::args::RecordArgs;
use super::event::line;
use super::tables::{Lines, Tables};

/// The target of the report.
pub enum Target {
    /// A file that appears complete, by rename.
    File(NamedFile),
    /// A descriptor of the caller, or the file of `--all`, whose lines are written as they come.
    Open(File),
}

impl Target {
    /// Opens the target, before the program starts.
    pub fn open(args: &RecordArgs) -> Result<Self> {
        let word = args.target()?;
        Ok(match word.to_str().and_then(|word| word.parse().ok()) {
            Some(number) => Self::Open(info::inherit_fd(number, "--report")?.into()),
            None if args.all => Self::Open(File::create(word).on("--report", word)?),
            None => Self::File(NamedFile::for_replacement(Path::new(word), "--report")?),
        })
    }

    /// The lines of `--all`.
    pub fn lines(&self, is_all: bool) -> Result<Option<Lines>> {
        match self {
            Self::Open(file) if is_all => {
                Ok(Some(Lines::new(file.try_clone().op("dup --report")?)))
            }
            _ => Ok(None),
        }
    }

    /// Writes the report, or its end behind the lines.
    pub fn write(&mut self, first: Value, tables: &mut Tables, last: Vec<Value>) -> Result<()> {
        let first = [first].into_iter();
        if let Some(lines) = tables.lines.take() {
            return lines.finish(first.chain(tables.gap_events()).chain(last));
        }
        let events = first.chain(tables.events()).chain(last);
        let text: String = events.map(|event| line(&event)).collect();
        match self {
            Self::File(file) => file.replace(text.as_bytes()),
            Self::Open(file) => file.write_all(text.as_bytes()).op("write --report"),
        }
    }
}

impl AsFd for Target {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::File(file) => file.as_fd(),
            Self::Open(file) => file.as_fd(),
        }
    }
}
