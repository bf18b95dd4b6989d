//! Files that an option or operand names for writing.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use jc_unshare::{Context, Result};
use rustix::fs::{CWD, Mode, OFlags};

use crate::atomic::AtomicPath;
use crate::output::own_target;

/// A file to write.
pub enum Target {
    /// A regular file, which appears complete.
    File(AtomicPath),
    /// Standard output, a device or a FIFO.
    Stream(File),
}

/// Opens a path for writing. `-` is standard output. A link, FIFO or device that another user has put into a directory
/// that others write to is an error.
pub fn open(path: &Path) -> Result<Target> {
    if path.as_os_str() == "-" {
        let stdout = std::io::stdout().as_fd().try_clone_to_owned().op("dup stdout")?;
        return Ok(Target::Stream(File::from(stdout)));
    }
    let path = &own_target("write", path)?;
    if path.symlink_metadata().is_ok_and(|stat| !stat.is_file() && !stat.is_symlink()) {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(CWD, path, flags, Mode::empty()).on("open", path)?;
        return Ok(Target::Stream(File::from(opened)));
    }
    AtomicPath::file(path).map(Target::File)
}
