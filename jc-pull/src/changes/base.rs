//! The directories that an upper directory lies over.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use jc_unshare::record::{Record, Root};
use jc_unshare::{Context, Result, read_at_most};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::merged::Merged;

/// Lower directories, the uppermost first.
pub struct Base(Vec<OwnedFd>);

impl Base {
    /// Opens the directory or the record of a word. `-` is a record on stdin.
    pub fn open(word: &Path) -> Result<Self> {
        if word == Path::new("-") {
            let line = read_at_most(std::io::stdin(), record_size(), word)?;
            return Self::of_record(&Record::parse(&line)?);
        }
        match open_dir(word) {
            Ok(directory) => Ok(Self(vec![directory])),
            Err(Errno::NOTDIR) => {
                File::open(word).on("open", word)?;
                Self::of_record(&Record::read(word)?)
            }
            Err(e) => Err(e).on("open", word),
        }
    }

    fn of_record(record: &Record) -> Result<Self> {
        match record.root()? {
            Root::Directory(directory) => Self::of_layers(&[directory]),
            Root::Layers(layers) => Self::of_layers(&layers),
        }
    }

    /// Opens directories, the lowest first. An absent one is an error.
    pub fn of_layers(paths: &[PathBuf]) -> Result<Self> {
        let open = |path: &PathBuf| {
            let absent = "a lower directory is gone; --base names a copy of it";
            open_dir(path).on("open", path).map_err(|e| match e.errno() {
                Some(errno) if errno == Errno::NOENT.raw_os_error() => e.hint(absent),
                _ => e,
            })
        };
        paths.iter().rev().map(open).collect::<Result<_>>().map(Self)
    }

    /// Open directories, the uppermost first.
    pub const fn of_open(directories: Vec<OwnedFd>) -> Self {
        Self(directories)
    }

    /// The root of the merged directories.
    pub fn merged(&self) -> Result<Merged> {
        Merged::new(&self.0).on("read", "/")
    }
}

/// The longest record, in bytes.
fn record_size() -> u64 {
    jc_unshare::record::MAX_LINE as u64
}

/// Opens a directory for reading. The caller names the path, so symbolic links are followed.
pub fn open_dir(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}
