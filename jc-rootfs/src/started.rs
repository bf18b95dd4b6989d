//! `--started`: telling whoever runs the container which process the payload is, and when it has
//! begun to be that.

use std::fs;
use std::io::Write;
use std::path::Path;

use jc_unshare::{Context, Error, Result};

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
    pub fn open(path: &Path) -> Result<Self> {
        let file = fs::File::options().read(true).append(true).create(true).open(path);
        let stat = fs::read_to_string("/proc/self/stat").on("read", "/proc/self/stat")?;
        let line = identity(&stat).ok_or_else(|| Error::new("read /proc/self/stat: too short"))?;
        Ok(Self { file: file.on("open", path)?, line })
    }

    /// Writes who the payload is.
    pub fn tell(&mut self) -> Result<()> {
        self.file.write_all(self.line.as_bytes()).op("write --started")
    }

    /// Writes that there is no payload.
    pub fn take_back(&mut self) {
        // The error that is being reported matters more.
        let _: std::io::Result<()> = self.file.write_all(b"failed\n");
    }
}

/// The first and the 22nd field of `/proc/PID/stat` (proc_pid_stat(5)); the second may hold anything
/// but ends in ")".
fn identity(stat: &str) -> Option<String> {
    let (pid, _) = stat.split_once(' ')?;
    let (_, fields) = stat.rsplit_once(") ")?;
    Some(format!("{pid} {}\n", fields.split(' ').nth(19)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_its_number_and_when_it_began() {
        let fields: Vec<String> = (4..53).map(|n| n.to_string()).collect();
        let stat = format!("77 (a ) R 5) S {}\n", fields.join(" "));
        assert_eq!(identity(&stat).unwrap(), "77 22\n");
        assert_eq!(identity("77 (x"), None);
    }
}
