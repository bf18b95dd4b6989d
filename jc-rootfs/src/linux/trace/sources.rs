//! Facts of other links for the report: the usage of jc-cgroup, and the names of jc-egress.

use std::collections::BTreeSet;
use std::ffi::OsString;
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
        let (usage, writer) = match &args.usage {
            None => (None, None),
            Some(word) => open_usage(word, args.trace_fd)?,
        };
        let log = args.egress_log.as_ref().map(|path| {
            let meta = fs::metadata(path).on("--egress-log", path).absent()?;
            Ok((path.clone(), meta.map_or(0, |meta| meta.len())))
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
    pub fn events(&mut self) -> Result<Vec<Map<String, Value>>> {
        let mut events = match &self.log {
            Some((path, length)) => names(path, *length)?,
            None => Vec::new(),
        };
        if let Some(usage) = &mut self.usage
            && let Some(text) = usage.read()?
        {
            let mut event: Map<String, Value> = serde_json::from_slice(&text)
                .map_err(|error| Error::new(format_args!("--usage: {error}")))?;
            event.insert("event".into(), "usage".into());
            events.push(event);
        }
        Ok(events)
    }
}

type Opened = (Option<Usage>, Option<(OwnedFd, u32)>);

fn open_usage(word: &OsString, trace_fd: Option<u32>) -> Result<Opened> {
    let number = word.to_str().and_then(|word| word.parse::<u32>().ok());
    let Some(number) = number else {
        let path = PathBuf::from(word);
        let before = fs::metadata(&path).on("--usage", &path).absent()?;
        return Ok((Some(Usage::File(path, before.map(|meta| meta.ino()))), None));
    };
    if number <= 2 || trace_fd.is_none_or(|other| other == number) {
        return Err(Error::usage(format_args!(
            "--usage {number}: needs --trace-fd with another number"
        ))
        .hint("a descriptor is a pipe for jc-cgroup --report in the chain"));
    }
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).op("pipe")?;
    fcntl_setfl(&reader, OFlags::NONBLOCK).op("F_SETFL")?;
    Ok((Some(Usage::Pipe(reader.into())), Some((writer, number))))
}

impl Usage {
    /// The report of jc-cgroup. `None`: jc-cgroup has written none, as after a failure.
    fn read(&mut self) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Pipe(pipe) => {
                let mut text = vec![0; MOST_USAGE as usize];
                let length = match pipe.read(&mut text) {
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
                    read => read.op("read --usage")?,
                };
                text.truncate(length);
                Ok((length > 0).then_some(text))
            }
            Self::File(path, before) => {
                let Some(file) = File::open(&*path).on("--usage", &*path).absent()? else {
                    return Ok(None);
                };
                let is_old = Some(file.metadata().on("--usage", &*path)?.ino()) == *before;
                let text = (!is_old).then(|| read_at_most(file, MOST_USAGE, &*path));
                text.transpose()
            }
        }
    }
}

/// The allowed connections by name in the lines that a log has from an offset on.
fn names(path: &Path, offset: u64) -> Result<Vec<Map<String, Value>>> {
    let Some(mut file) = File::open(path).on("--egress-log", path).absent()? else {
        return Ok(Vec::new());
    };
    file.seek(SeekFrom::Start(offset)).on("--egress-log", path)?;
    let text = read_at_most(file, MOST_LOG, path)?;
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let mut names = BTreeSet::new();
    for line in lines {
        let line: Value = serde_json::from_slice(line)
            .map_err(|error| Error::new(format_args!("{}: {error}", path.display())))?;
        let host = line["name"].as_str().or_else(|| line["address"].as_str());
        let (Some(host), Some(port)) = (host, line["port"].as_u64()) else { continue };
        if line["protocol"] == "tcp" {
            names.insert((host.to_owned(), port, line["verdict"] == "allow"));
        }
    }
    let event = |(host, port, is_allowed): (String, u64, bool)| {
        Map::from_iter([
            ("event".to_owned(), json!("name")),
            ("name".to_owned(), json!(host)),
            ("port".to_owned(), json!(port)),
            ("allowed".to_owned(), json!(is_allowed)),
        ])
    };
    Ok(names.into_iter().map(event).collect())
}
