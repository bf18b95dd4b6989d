//! Configuration files of the caller. They name programs to execute and registries to trust, so a file at
//! a default path has to belong to the caller or to root.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags};
use rustix::process::geteuid;

use crate::descriptor::open_regular;
use crate::error::{Absent, Context, Error, Result, read_at_most};
use crate::private_dir::Owner;
use crate::tool::path_variable;

/// The variable that names another file with logins, in place of the default ones.
pub const AUTH_FILE: &str = "REGISTRY_AUTH_FILE";

/// The most bytes in a file.
const MAX_FILE: u64 = 1 << 20;

/// Reads a file that the caller names. The file may be a FIFO, which can carry a password. A file of more
/// than 1 MiB is an error.
pub fn read_named(path: &Path) -> Result<Vec<u8>> {
    read_at_most(File::open(path).on("read", path)?, MAX_FILE, path)
}

/// Reads a regular file of the caller or of root. The result is `None` if the file is absent. Other types
/// of files, and files of other users, are errors.
pub fn read_found(path: &Path) -> Result<Option<Vec<u8>>> {
    let file = open_regular(CWD, path, OFlags::empty()).on("read", path).absent()?;
    let Some(file) = file else { return Ok(None) };
    let stat = rustix::fs::fstat(&file).on("stat", path)?;
    // Root of a user namespace sees files of the host's root as unmapped.
    let is_trusted = match Owner::of(&stat)? {
        Owner::Trusted => true,
        Owner::Unmapped => geteuid().is_root(),
        Owner::Foreign => false,
    };
    if !is_trusted {
        let (path, user) = (path.display(), stat.st_uid);
        let why =
            format_args!("{path}: the file belongs to user {user}, not to the caller or root");
        let hint = "name the file by an option or a variable to use it anyway";
        return Err(Error::new(why).hint(hint));
    }
    read_at_most(file, MAX_FILE, path).map(Some)
}

/// The default files with logins: those of podman, and Docker's.
pub fn login_files() -> Vec<PathBuf> {
    if path_variable(AUTH_FILE).is_some() {
        return Vec::new();
    }
    let own = path_variable("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json"));
    let config = user_directory().map(|dir| dir.join("auth.json"));
    let docker = path_variable("DOCKER_CONFIG");
    let docker = docker.or_else(|| Some(path_variable("HOME")?.join(".docker")));
    let docker = docker.map(|dir| dir.join("config.json"));
    [own, config, docker].into_iter().flatten().collect()
}

/// The user's directory of containers/image: `$XDG_CONFIG_HOME/containers`, or else `~/.config/containers`.
pub fn user_directory() -> Option<PathBuf> {
    let config = path_variable("XDG_CONFIG_HOME");
    let config = config.or_else(|| Some(path_variable("HOME")?.join(".config")));
    config.map(|config| config.join("containers"))
}

/// The paths in a directory, sorted. An absent directory has none.
pub fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory).on("read", directory).absent()?;
    let Some(entries) = entries else { return Ok(Vec::new()) };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths: Vec<PathBuf> = paths.collect::<io::Result<_>>().on("read", directory)?;
    paths.sort();
    Ok(paths)
}

/// The text of a file. Bytes that are not UTF-8 are an error.
pub fn text(bytes: Vec<u8>, path: &Path) -> Result<String> {
    String::from_utf8(bytes).map_err(|_| Error::new(format_args!("{}: not UTF-8", path.display())))
}

#[cfg(test)]
mod tests {
    use rustix::fs::{FileType, Mode};

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
        assert!(refused("long").ends_with("long: longer than 1048576 bytes"));
        assert!(refused("fifo").ends_with("fifo: not a regular file"));
        assert!(refused("directory").ends_with("directory: not a regular file"));
        assert_eq!(read_named(Path::new("/dev/null")).unwrap(), b"");
        assert!(
            read_named(Path::new("/dev/zero")).unwrap_err().to_string().contains("longer than")
        );
    }
}
