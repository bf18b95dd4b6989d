//! `--report`: the bill, at the end.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jc_unshare::supervise::Exit;
use jc_unshare::{Absent, Context, Error, Result, sys};
use rustix::fs::{Access, access};
use serde_json::{Map, Value, json};

/// Where the report goes.
#[derive(Debug)]
pub enum Target {
    /// A file that appears whole.
    File(PathBuf),
    /// What is open: a descriptor of the caller's, or a device, a FIFO or whatever a link leads to, which
    /// must not be replaced: /dev/null and /dev/stderr are such.
    Open(File),
}

impl Target {
    /// Makes sure of the target before anything is started.
    pub fn open(word: &str) -> Result<Self> {
        match word.parse() {
            _ if word == "-" => Err(Error::usage("--report -: stdout is the program's")),
            Ok(n @ 0..=2) => Err(Error::usage(format_args!("--report {n}: it is the program's"))),
            Ok(number) => {
                let fd = sys::take_fd(number).on("--report", word)?;
                Ok(Self::Open(fd.into()))
            }
            Err(_) => {
                let path = PathBuf::from(word);
                let meta = std::fs::metadata(&path).on("--report", &path).absent()?;
                if meta.is_some_and(|meta| meta.is_dir()) {
                    return Err(Error::new(format_args!("--report {word}: Is a directory")));
                }
                let own = std::fs::symlink_metadata(&path).on("--report", &path).absent()?;
                if own.is_some_and(|meta| !meta.is_file()) {
                    let file = File::options().append(true).open(&path);
                    return file.on("--report", &path).map(Self::Open);
                }
                access(directory(&path), Access::WRITE_OK).on("--report", &path)?;
                Ok(Self::File(path))
            }
        }
    }

    /// Writes one line of JSON.
    pub fn write(&mut self, report: &Map<String, Value>) -> Result<()> {
        let line = format!("{}\n", json!(report));
        match self {
            Self::Open(file) => file.write_all(line.as_bytes()).op("write --report"),
            Self::File(path) => replace(path, line.as_bytes()),
        }
    }
}

/// What only the supervisor knows.
pub fn outcome(exit: Exit, wall: Duration) -> Map<String, Value> {
    let (code, signal) = match exit {
        Exit::Code(code) => (Some(code), None),
        Exit::Signal(signal) | Exit::Key(signal) => (None, Some(signal)),
    };
    let wall = u64::try_from(wall.as_micros()).unwrap_or(u64::MAX);
    let mut report = Map::new();
    report.insert("exit_code".into(), json!(code));
    report.insert("signal".into(), json!(signal));
    report.insert("wall_usec".into(), json!(wall));
    report
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file that others read appears by rename.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = File::create_new(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&temporary, path));
    written.on("write", path).inspect_err(|_| drop(std::fs::remove_file(&temporary)))
}
