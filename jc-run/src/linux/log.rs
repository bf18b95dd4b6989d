//! The log of one output of a detached payload: two files of bounded size that only the supervisor
//! writes.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jc_unshare::{Context, Result};

/// Files of the logs of a container: two for each of two outputs.
const FILES: u64 = 4;

/// The name of the previous file of a log.
pub fn older(name: &str) -> String {
    format!("{name}.1")
}

/// The log of one output.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    older: PathBuf,
    /// The current file, if its creation succeeded.
    file: Option<File>,
    /// The number of bytes in the current file.
    length: u64,
    /// The most bytes of one file.
    limit: u64,
    /// The number of bytes that could not be written.
    lost: u64,
}

impl Log {
    /// Creates the file with this name. `size` is the limit for all logs of the container, in bytes.
    pub fn create(directory: &Path, name: &str, size: u64) -> Result<Self> {
        let (path, older) = (directory.join(name), directory.join(older(name)));
        let file = Some(create(&path).on("create", &path)?);
        Ok(Self { path, older, file, length: 0, limit: size / FILES, lost: 0 })
    }

    /// Appends bytes. Bytes that cannot be written, as on a full disk, are counted and dropped, since a payload must not
    /// wait for its log.
    pub fn append(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(_) => {
                    self.lost += bytes.len() as u64;
                    return;
                }
            }
        }
    }

    /// The number of bytes that could not be written so far.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.length >= self.limit {
            fs::rename(&self.path, &self.older)?;
            (self.file, self.length) = (None, 0);
        }
        let mut file = match &self.file {
            Some(file) => file,
            None => self.file.insert(create(&self.path)?),
        };
        let room = usize::try_from(self.limit - self.length).unwrap_or(usize::MAX);
        match file.write(&bytes[..room.min(bytes.len())])? {
            0 => Err(ErrorKind::WriteZero.into()),
            count => {
                self.length += count as u64;
                Ok(count)
            }
        }
    }
}

fn create(path: &Path) -> io::Result<File> {
    File::options().write(true).create(true).truncate(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_keeps_the_last_bytes_in_two_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::create(dir.path(), "stdout", 4 * 10).unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap_or_default();
        for (text, before, now) in [
            ("", "", ""),
            ("0123456789", "", "0123456789"),
            ("a", "0123456789", "a"),
            ("bcdefghijKLMNOPQRSTuvw", "KLMNOPQRST", "uvw"),
        ] {
            log.append(text.as_bytes());
            assert_eq!((read("stdout.1").as_str(), read("stdout").as_str()), (before, now));
        }
        assert_eq!(log.lost(), 0);
    }

    #[test]
    fn bytes_that_cannot_be_written_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().join("there");
        fs::create_dir(&there).unwrap();
        let mut log = Log::create(&there, "stdout", 4 * 10).unwrap();
        fs::remove_dir_all(&there).unwrap();
        log.append(&[0; 25]);
        assert_eq!(log.lost(), 15);
        fs::create_dir(&there).unwrap();
        log.append(&[0; 5]);
        assert_eq!(log.lost(), 20);
    }
}
