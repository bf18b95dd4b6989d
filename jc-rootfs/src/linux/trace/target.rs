//! `--report`: the file or descriptor of a report.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use jc_unshare::named_file::NamedFile;
use jc_unshare::{Context, Result, info};
use serde_json::{Map, Value};

use super::args::RecordArgs;
use super::event::line;
use super::tables::{Lines, Tables};

/// The target of the report.
pub enum Target {
    /// A file that appears complete, by rename.
    File(NamedFile),
    /// A descriptor of the caller.
    Open(File),
    /// The lines of `--all` are written as they come.
    Lines(File),
}

impl Target {
    /// Opens the target, before the program starts.
    pub fn open(args: &RecordArgs) -> Result<Self> {
        let word = args.target()?;
        let number = word.to_str().and_then(|word| word.parse().ok());
        let file = match number {
            Some(number) => File::from(info::inherit_fd(number, "--report")?),
            None if args.all => File::create(word).on("--report", word)?,
            None => return NamedFile::for_replacement(Path::new(word), "--report").map(Self::File),
        };
        Ok(if args.all { Self::Lines(file) } else { Self::Open(file) })
    }

    /// The lines of `--all`.
    pub fn lines(&self) -> Result<Option<Lines>> {
        match self {
            Self::Lines(file) => Ok(Some(Lines::new(file.try_clone().op("dup --report")?))),
            _ => Ok(None),
        }
    }

    /// Writes the report, or its end behind the lines.
    pub fn write(
        &mut self,
        first: Map<String, Value>,
        tables: &mut Tables,
        last: Vec<Map<String, Value>>,
    ) -> Result<()> {
        if matches!(self, Self::Lines(_)) {
            let events = [vec![first], tables.gap_events(), last].concat();
            return tables.finish_lines(events);
        }
        let events = [first].into_iter().chain(tables.events()).chain(last);
        let text: String = events.map(line).collect();
        match self {
            Self::File(file) => file.replace(text.as_bytes()),
            Self::Open(file) | Self::Lines(file) => {
                file.write_all(text.as_bytes()).op("write --report")
            }
        }
    }
}

impl AsFd for Target {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::File(file) => file.as_fd(),
            Self::Open(file) | Self::Lines(file) => file.as_fd(),
        }
    }
}
