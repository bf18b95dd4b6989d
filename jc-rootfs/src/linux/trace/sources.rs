//! Facts of other links for the report: the usage of jc-cgroup, and the names of jc-egress.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jc_unshare::{Absent, Context, Error, Result, read_at_most};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};
use serde_json::{Map, Value, json};

use super::args::RecordArgs;

/// The most bytes of a report of jc-cgroup.
const MOST_USAGE: u64 = 1 << 20;

/// The most bytes of the log of jc-egress that one run adds.
const MOST_LOG: u64 = 256 << 20;

/// The source of the usage.
#[derive(Debug)]
enum Usage {
    Pipe(File),
    /// A file, and the number of the file that was there before.
    File(PathBuf, Option<u64>),
}

/// The sources of a run.
#[derive(Debug)]
pub struct Sources {
    usage: Option<Usage>,
    /// The log of jc-egress, with its length before the run.
    log: Option<(PathBuf, u64)>,
}

impl Sources {
    /// Finds the sources, before the program starts. Returns also the descriptor for jc-cgroup, with its number in the
    /// chain.
    pub fn open(args: &RecordArgs) -> Result<(Self, Option<(OwnedFd, u32)>)> {
        let number = args.usage.as_ref().and_then(|word| word.to_str()?.parse::<u32>().ok());
        let (usage, writer) = match (&args.usage, number) {
            (None, _) => (None, None),
            (Some(word), None) => {
                let before = metadata(Path::new(word), "--usage")?.map(|meta| meta.ino());
                (Some(Usage::File(word.into(), before)), None)
            }
            (Some(_), Some(number)) => {
                if number <= 2 || args.trace_fd.is_none_or(|other| other == number) {
                    return Err(Error::usage(format_args!(
                        "--usage {number}: needs --trace-fd with another number"
                    ))
                    .hint("a descriptor is a pipe for jc-cgroup --report in the chain"));
                }
                let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).op("pipe")?;
                fcntl_setfl(&reader, OFlags::NONBLOCK).op("F_SETFL")?;
                (Some(Usage::Pipe(reader.into())), Some((writer, number)))
            }
        };
        let log = args.egress_log.as_ref().map(|path| {
            let length = metadata(path, "--egress-log")?.map_or(0, |meta| meta.len());
            Ok((path.clone(), length))
        });
        Ok((Self { usage, log: log.transpose()? }, writer))
    }

    /// The descriptor that stays open.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.usage {
            Some(Usage::Pipe(pipe)) => Some(pipe.as_fd()),
            _ => None,
        }
    }

    /// The events of the sources, after the end of the program.
    pub fn events(&mut self) -> Result<Vec<Value>> {
        let mut events = match &self.log {
            Some((path, length)) => names(path, *length)?,
            None => Vec::new(),
        };
        let text = self.usage.as_mut().map_or(Ok(Vec::new()), Usage::read)?;
        if !text.is_empty() {
            let mut event: Map<String, Value> = serde_json::from_slice(&text)
                .map_err(|error| Error::new(format_args!("--usage: {error}")))?;
            event.insert("event".into(), "usage".into());
            events.push(event.into());
        }
        Ok(events)
    }
}

fn metadata(path: &Path, option: &str) -> Result<Option<fs::Metadata>> {
    fs::metadata(path).on(option, path).absent()
}

impl Usage {
    /// The report of jc-cgroup, which is empty if jc-cgroup has written none, as after a failure.
    fn read(&mut self) -> Result<Vec<u8>> {
        match self {
            Self::Pipe(pipe) => {
                let mut text = vec![0; MOST_USAGE as usize];
                let length = match pipe.read(&mut text) {
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
                    read => read.op("read --usage")?,
                };
                text.truncate(length);
                Ok(text)
            }
            Self::File(path, before) => match File::open(&*path).on("--usage", &*path).absent()? {
                Some(file) if Some(file.metadata().on("--usage", &*path)?.ino()) != *before => {
                    read_at_most(file, MOST_USAGE, path)
                }
                _ => Ok(Vec::new()),
            },
        }
    }
}

/// The connections by name in the lines that a log has from an offset on.
fn names(path: &Path, offset: u64) -> Result<Vec<Value>> {
    let Some(mut file) = File::open(path).on("--egress-log", path).absent()? else {
        return Ok(Vec::new());
    };
    file.seek(SeekFrom::Start(offset)).on("--egress-log", path)?;
    let text = read_at_most(file, MOST_LOG, path)?;
    let mut names = BTreeSet::new();
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let line: Value = serde_json::from_slice(line)
            .map_err(|error| Error::new(format_args!("{}: {error}", path.display())))?;
        let host = line["name"].as_str().or_else(|| line["address"].as_str());
        if let (Some(host), Some(port), Some("tcp")) =
            (host, line["port"].as_u64(), line["protocol"].as_str())
        {
            names.insert((host.to_owned(), port, line["verdict"] == "allow"));
        }
    }
    let event = |(name, port, is_allowed)| json!({ "event": "name", "name": name, "port": port, "allowed": is_allowed });
    Ok(names.into_iter().map(event).collect())
}
