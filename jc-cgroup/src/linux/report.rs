//! `--report`: the target of the resource usage.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use jc_unshare::descriptor::open_at;
use jc_unshare::private_dir::{PLANTED, is_planted, is_shared};
use jc_unshare::supervise::Exit;
use jc_unshare::{Context, Error, Result, id, sys};
use rustix::fs::{
    Access, AtFlags, CWD, FileType, Mode, OFlags, Stat, accessat, fstat, openat, readlinkat,
    renameat, unlinkat,
};
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

/// A name in an open directory.
#[derive(Debug)]
pub struct NamedFile {
    directory: OwnedFd,
    name: OsString,
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
            Err(_) => NamedFile::find(Path::new(word))?.target(word),
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
            Self::File(place) => place.directory.as_fd(),
            Self::Open(file) => file.as_fd(),
        }
    }
}

impl NamedFile {
    fn find(path: &Path) -> Result<Self> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, parent.unwrap_or(Path::new(".")), flags, Mode::empty());
        let name = path.file_name().filter(|_| !path.as_os_str().as_bytes().ends_with(b"/"));
        let name = name.ok_or_else(|| is_directory(path))?.to_owned();
        Ok(Self { directory: directory.on("--report", path)?, name })
    }

    fn target(self, word: &str) -> Result<Target> {
        let found = match open_at(&self.directory, &self.name) {
            Err(Errno::NOENT) => None,
            other => Some(other.on("--report", word)?),
        };
        let Some(found) = found else { return self.file(word) };
        let stat = fstat(&found).on("--report", word)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.file(word),
            FileType::Directory => Err(is_directory(Path::new(word))),
            kind => {
                let is_shared = self.check_not_planted(word, &stat)?;
                let file = match kind {
                    // A magic link of procfs has no path that could be read, and lies in no shared directory.
                    FileType::Symlink if !is_shared => self.open_to_append(&self.name, word),
                    FileType::Symlink => {
                        let to = readlinkat(&found, "", Vec::new()).on("--report", word)?;
                        self.open_to_append(OsStr::from_bytes(to.as_bytes()), word)
                    }
                    _ => {
                        let path = format!("/proc/self/fd/{}", found.as_raw_fd());
                        self.open_to_append(OsStr::new(&path), word)
                    }
                };
                file.map(Target::Open)
            }
        }
    }

    fn file(self, word: &str) -> Result<Target> {
        accessat(&self.directory, ".", Access::WRITE_OK, AtFlags::empty()).on("--report", word)?;
        Ok(Target::File(self))
    }

    /// Checks that no other user has put the file into a shared directory. Returns whether the directory is shared.
    fn check_not_planted(&self, word: &str, stat: &Stat) -> Result<bool> {
        let directory = fstat(&self.directory).on("--report", word)?;
        if is_planted(&directory, stat)? {
            return Err(Error::new(format_args!("--report {word}: {PLANTED}")));
        }
        is_shared(&directory)
    }

    /// Opens an existing file. The open of a FIFO waits some time for a reader.
    fn open_to_append(&self, path: &OsStr, word: &str) -> Result<File> {
        let flags =
            OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let give_up = Instant::now() + PATIENCE;
        loop {
            match openat(&self.directory, path, flags, Mode::empty()) {
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

    /// Writes a temporary file and renames it, since others may read the file.
    fn replace(&self, bytes: &[u8]) -> Result<()> {
        let temporary = format!(".jc-report-{}", id::random()?);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o666);
        let path = Path::new(&self.name);
        let file = openat(&self.directory, &temporary, flags, mode).on("write", path)?;
        let mut file = File::from(file);
        let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| {
            renameat(&self.directory, &temporary, &self.directory, &self.name)?;
            Ok(())
        });
        if written.is_err() {
            // The first error is the one to report.
            let _: rustix::io::Result<()> = unlinkat(&self.directory, &temporary, AtFlags::empty());
        }
        written.on("write", path)
    }
}

fn is_directory(path: &Path) -> Error {
    Error::new(format_args!("--report {}: Is a directory", path.display()))
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
