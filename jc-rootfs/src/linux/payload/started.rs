//! `--started`: telling whoever runs the container which process the payload is, and when it has
//! begun to be that.

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use jc_unshare::process::Process;
use jc_unshare::{Context, Result};

/// A file, mostly a FIFO, that is open until the payload is executed. Its reader sees the payload's
/// line and then the end, or before the end that it was not executed after all.
pub struct Started {
    file: fs::File,
    /// `PID STARTTIME`, as the procfs of the host has them.
    line: String,
}

impl Started {
    /// Opens the file while its path is still that of the host. A FIFO that nobody reads holds nobody
    /// up (fifo(7): it is opened for reading too).
    pub fn open(path: &Path, payload: Process) -> Result<Self> {
        let file = fs::File::options().read(true).append(true).create(true).open(path);
        let mut started = Self { file: file.on("open", path)?, line: String::new() };
        started.name(payload);
        Ok(started)
    }

    /// Makes another process the payload, before its line is written.
    pub fn name(&mut self, payload: Process) {
        self.line = format!("{payload}\n");
    }

    /// The file.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Writes who the payload is.
    pub fn tell(&mut self) -> Result<()> {
        self.file.write_all(self.line.as_bytes()).op("write --started")
    }

    /// Takes over the file from the program that this process was before, after its line.
    pub fn inherit(fd: OwnedFd) -> Self {
        Self { file: fd.into(), line: String::new() }
    }

    /// Writes that there is no payload.
    pub fn take_back(&mut self) {
        // The error that is being reported matters more.
        let _: std::io::Result<()> = self.file.write_all(b"failed\n");
    }
}
