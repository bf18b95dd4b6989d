//! Output files that appear complete, and output to stdout.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use jc_unshare::private_dir::{PLANTED, is_planted};
use jc_unshare::{Absent, Context, Error, Kind, Result};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::atomic::AtomicPath;

/// The bytes that are written at a time.
const BUFFER: usize = 1 << 20;

/// Writes to the file of an option, which appears complete, or to stdout for `-`. A device or a FIFO at the path is
/// written to. Returns whether the output was stdout, whose reader may go when it has all that it needs.
pub fn write(
    option: &str,
    path: &Path,
    no_sync: bool,
    content: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<bool> {
    if path.as_os_str() == "-" {
        let mut stdout = BufWriter::with_capacity(BUFFER, std::io::stdout().lock());
        let written = content(&mut stdout).and_then(|()| stdout.flush().op("write stdout"));
        let is_closed = |error: &Error| error.errno() == Some(Errno::PIPE.raw_os_error());
        return written
            .map(|()| true)
            .map_err(|error| if is_closed(&error) { error.of_kind(Kind::Quiet) } else { error });
    }
    write_file(option, path, no_sync, content).map(|()| false)
}

fn write_file(
    option: &str,
    path: &Path,
    no_sync: bool,
    content: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    let path = &own_target(option, path)?;
    let fill = |file: &File| {
        let mut buffered = BufWriter::with_capacity(BUFFER, file);
        content(&mut buffered)?;
        buffered.flush().on("write", path)
    };
    if path.symlink_metadata().is_ok_and(|stat| !stat.is_file() && !stat.is_symlink()) {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(CWD, path, flags, Mode::empty()).on("open", path)?;
        return fill(&File::from(opened));
    }
    let output = AtomicPath::file(path)?;
    let file = File::from(output.fd.try_clone().op("dup")?);
    fill(&file)?;
    if !no_sync {
        file.sync_all().on("sync", path)?;
    }
    output.publish()
}

/// The path to write: the target of a symbolic link, which stays. A link, FIFO or device that another user has put
/// into a directory that others write to is an error. A symbolic link that appears later is not followed.
pub fn own_target(option: &str, path: &Path) -> Result<PathBuf> {
    let Some(entry) = rustix::fs::lstat(path).on("stat", path).absent()? else {
        return Ok(path.to_owned());
    };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let directory = rustix::fs::stat(parent).on("stat", parent)?;
    match FileType::from_raw_mode(entry.st_mode) {
        FileType::RegularFile => Ok(path.to_owned()),
        _ if is_planted(&directory, &entry)? => {
            Err(Error::new(format_args!("{option} {}: {PLANTED}", path.display())))
        }
        FileType::Symlink => Ok(std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())),
        _ => Ok(path.to_owned()),
    }
}
