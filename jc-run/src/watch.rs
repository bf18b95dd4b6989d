//! What the supervisor watches besides its child: the FIFO that tells when the payload begins, and
//! for a detached terminal what it shows.

use std::fs::File;
use std::io::{ErrorKind, PipeReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use jc_unshare::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::console::Console;
use jc_unshare::process::Process;

/// What there is to watch.
pub struct Watch {
    /// The FIFO, not blocking.
    pub fifo: File,
    /// Hung up when the chain has ended.
    pub ended: PipeReader,
    /// For a terminal that nobody sits at: the socket, its path, and the file for what is shown.
    pub console: Option<(Console, PathBuf, File)>,
}

/// Watches until the chain has ended, and calls `started` when the payload has begun.
pub fn watch(watch: Watch, mut started: impl FnMut(Process) -> Result<()>) -> Result<()> {
    let Watch { fifo, ended, mut console } = watch;
    let (mut fifo, mut told) = (Some(fifo), String::new());
    let mut screen: Option<(OwnedFd, File)> = None;
    loop {
        let mut fds = vec![PollFd::new(&ended, PollFlags::IN)];
        let mut add = |fd| {
            fds.push(fd);
            fds.len() - 1
        };
        let at_fifo = fifo.as_ref().map(|fifo| add(PollFd::new(fifo, PollFlags::IN)));
        let at_console = console.as_ref().map(|(c, _, _)| add(PollFd::new(c, PollFlags::IN)));
        let at_screen =
            screen.as_ref().map(|(m, _)| add(PollFd::from_borrowed_fd(m.as_fd(), PollFlags::IN)));
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            other => other.op("poll")?,
        };
        let is_ready = |at: Option<usize>| at.is_some_and(|at| !fds[at].revents().is_empty());
        let (by_fifo, by_console, by_screen) =
            (is_ready(at_fifo), is_ready(at_console), is_ready(at_screen));
        let has_ended = is_ready(Some(0));
        drop(fds);
        if by_fifo && !more_of(fifo.as_mut(), &mut told)? {
            fifo = None;
            if let Some(process) = payload(&told) {
                started(process)?;
            }
        }
        if by_console && let Some((console, path, log)) = console.take() {
            screen = Some((console.take(&path)?, log));
        }
        if by_screen && !copy(screen.as_mut())? {
            screen = None;
        }
        if has_ended && !by_fifo && !by_screen {
            return Ok(());
        }
    }
}

/// Reads from the FIFO what there is; says whether more may come.
fn more_of(fifo: Option<&mut File>, told: &mut String) -> Result<bool> {
    let mut buffer = [0; 256];
    match fifo.map_or(Ok(0), |fifo| fifo.read(&mut buffer)) {
        Ok(0) => Ok(false),
        Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(true),
        other => {
            told.push_str(&String::from_utf8_lossy(&buffer[..other.op("read --started")?]));
            Ok(true)
        }
    }
}

/// The payload, if it has been executed: one line, and none after it.
fn payload(told: &str) -> Option<Process> {
    let (line, rest) = told.split_once('\n')?;
    rest.is_empty().then(|| line.parse().ok()).flatten()
}

/// Copies what the terminal shows to the log; says whether more may come.
fn copy(screen: Option<&mut (OwnedFd, File)>) -> Result<bool> {
    let Some((master, log)) = screen else { return Ok(false) };
    let mut buffer = [0; 4096];
    match rustix::io::read(&*master, &mut buffer) {
        // So does a terminal say that nobody has it open any more.
        Ok(0) | Err(Errno::IO) => Ok(false),
        other => {
            log.write_all(&buffer[..other.op("read terminal")?]).op("write log").map(|()| true)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_one_line_and_nothing_taken_back() {
        assert_eq!(payload("7 99\n"), "7 99".parse().ok());
        for told in ["", "7 99", "7 99\nfailed\n", "x\n"] {
            assert_eq!(payload(told), None, "{told:?}");
        }
    }
}
