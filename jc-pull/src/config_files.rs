//! Configuration files of the caller. They name programs to execute and registries to trust, so a file at
//! a default path has to belong to the caller or to root.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use jc_unshare::private_dir::Owner;
use jc_unshare::{Context, Error, Result};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::process::geteuid;

/// The most bytes in a file.
const MAX_FILE: u64 = 1 << 20;

/// Reads a file that the caller names. The file may be a FIFO, which can carry a password.
pub fn read_named(path: &Path) -> Result<Vec<u8>> {
    read(&File::open(path).on("read", path)?, path)
}

/// Reads a regular file of the caller or of root. The result is `None` if the file is absent. Other types
/// of files, and files of other users, are errors.
pub fn read_found(path: &Path) -> Result<Option<Vec<u8>>> {
    // The open of a FIFO does not wait with these flags, and the open of a device has no effect.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(e) if is_absence(e.kind()) => return Ok(None),
        Err(e) => return Err(e).on("read", path),
    };
    let stat = rustix::fs::fstat(&file).on("stat", path)?;
    let refused = |why: String| Error::new(format_args!("{}: {why}", path.display()));
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(refused("not a regular file".to_owned()));
    }
    // Root of a user namespace sees files of the host's root as unmapped.
    let is_trusted = match Owner::of(&stat)? {
        Owner::Trusted => true,
        Owner::Unmapped => geteuid().is_root(),
        Owner::Foreign => false,
    };
    if !is_trusted {
        let why = format!("the file belongs to user {}, not to the caller or root", stat.st_uid);
        return Err(refused(why).hint("name the file by an option or a variable to use it anyway"));
    }
    read(&file, path).map(Some)
}

/// The paths in a directory, sorted. An absent directory has none.
pub fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if is_absence(e.kind()) => return Ok(Vec::new()),
        Err(e) => return Err(e).on("read", directory),
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths: Vec<PathBuf> = paths.collect::<io::Result<_>>().on("read", directory)?;
    paths.sort();
    Ok(paths)
}

fn is_absence(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn read(file: &File, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).on("read", path)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Error::new(format_args!("{}: more than {MAX_FILE} bytes", path.display())));
    }
    Ok(bytes)
}

pub fn text(bytes: Vec<u8>, path: &Path) -> Result<String> {
    String::from_utf8(bytes).map_err(|_| Error::new(format_args!("{}: not UTF-8", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_found_is_regular_and_short() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let refused = |name: &str| read_found(&path(name)).unwrap_err().to_string();
        std::fs::write(path("good"), "x").unwrap();
        std::fs::write(path("long"), vec![b' '; (1 << 20) + 1]).unwrap();
        std::fs::create_dir(path("directory")).unwrap();
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(CWD, path("fifo"), FileType::Fifo, mode, 0).unwrap();
        assert_eq!(read_found(&path("good")).unwrap(), Some(b"x".to_vec()));
        assert_eq!(read_found(&path("absent")).unwrap(), None);
        assert_eq!(read_found(&path("good/below")).unwrap(), None);
        assert!(refused("long").ends_with("long: more than 1048576 bytes"));
        assert!(refused("fifo").ends_with("fifo: not a regular file"));
        assert!(refused("directory").ends_with("directory: not a regular file"));
        assert_eq!(read_named(Path::new("/dev/null")).unwrap(), b"");
        assert!(read_named(Path::new("/dev/zero")).unwrap_err().to_string().contains("more than"));
    }
}
