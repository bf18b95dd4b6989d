//! `--report`: the target of the resource usage.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use jc_unshare::descriptor::open_at;
use jc_unshare::named_file::{NamedFile, is_directory};
use jc_unshare::private_dir::{PLANTED, is_planted, is_shared};
use jc_unshare::supervise::Exit;
use jc_unshare::{Context, Error, Result, sys};
use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, openat, readlinkat};
use rustix::io::Errno;
use serde_json::{Map, Value, json};

/// The longest wait for a reader of a FIFO.
const PATIENCE: Duration = Duration::from_secs(10);

/// The target of a report.
#[derive(Debug)]
pub enum Target {
    /// A file that appears complete, by rename.
    File(NamedFile),
    /// A descriptor of the caller, or a file that must not be replaced: a device, a FIFO or the target of a symbolic
    /// link, such as /dev/null and /dev/stderr.
    Open(File),
}

impl Target {
    /// Opens the target, before the program starts.
    pub fn open(word: &str) -> Result<Self> {
        match word.parse() {
            _ if word == "-" => Err(Error::usage("--report -: stdout is the program's")),
            Ok(n @ 0..=2) => Err(Error::usage(format_args!("--report {n}: it is the program's"))),
            Ok(number) => {
                let fd = sys::take_fd(number).on("--report", word)?;
                Ok(Self::Open(fd.into()))
            }
            Err(_) => target(NamedFile::find(Path::new(word), "--report")?, word),
        }
    }

    /// Writes one line of JSON.
    pub fn write(&mut self, report: &Map<String, Value>) -> Result<()> {
        let line = format!("{}\n", json!(report));
        match self {
            Self::Open(file) => file.write_all(line.as_bytes()).op("write --report"),
            Self::File(place) => place.replace(line.as_bytes()),
        }
    }
}

impl AsFd for Target {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::File(place) => place.as_fd(),
            Self::Open(file) => file.as_fd(),
        }
    }
}

/// The target of a word that is a path.
fn target(place: NamedFile, word: &str) -> Result<Target> {
    let found = match open_at(&place, place.name()) {
        Err(Errno::NOENT) => return file(place, word),
        other => other.on("--report", word)?,
    };
    let stat = fstat(&found).on("--report", word)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => file(place, word),
        FileType::Directory => Err(is_directory(word, "--report")),
        kind => {
            let is_shared = check_not_planted(&place, word, &stat)?;
            let file = match kind {
                // A magic link of procfs has no path that could be read, and lies in no shared directory.
                FileType::Symlink if !is_shared => open_to_append(&place, place.name(), word),
                FileType::Symlink => {
                    let to = readlinkat(&found, "", Vec::new()).on("--report", word)?;
                    open_to_append(&place, OsStr::from_bytes(to.as_bytes()), word)
                }
                _ => {
                    let path = format!("/proc/self/fd/{}", found.as_raw_fd());
                    open_to_append(&place, OsStr::new(&path), word)
                }
            };
            file.map(Target::Open)
        }
    }
}

fn file(place: NamedFile, word: &str) -> Result<Target> {
    place.may_write().on("--report", word)?;
    Ok(Target::File(place))
}

/// Checks that no other user has put the file into a shared directory. Returns whether the directory is shared.
fn check_not_planted(place: &NamedFile, word: &str, stat: &Stat) -> Result<bool> {
    let directory = fstat(place).on("--report", word)?;
    if is_planted(&directory, stat)? {
        return Err(Error::new(format_args!("--report {word}: {PLANTED}")));
    }
    is_shared(&directory)
}

/// Opens an existing file. The open of a FIFO waits some time for a reader.
fn open_to_append(place: &NamedFile, path: &OsStr, word: &str) -> Result<File> {
    let flags =
        OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let give_up = Instant::now() + PATIENCE;
    loop {
        match openat(place, path, flags, Mode::empty()) {
            Err(Errno::NXIO) if Instant::now() < give_up => sleep(Duration::from_millis(1)),
            Err(Errno::NXIO) => {
                let seconds = PATIENCE.as_secs();
                let why = format_args!("--report {word}: no reader in {seconds} seconds");
                return Err(Error::new(why));
            }
            other => return other.on("--report", word).map(File::from),
        }
    }
}

/// The figures that come from the end of the program, and not from files of the group.
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
