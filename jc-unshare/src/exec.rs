//! Execution of the rest of a chain: the program and arguments behind a link's own options.

mod advice;

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::libc;
use nix::sys::stat::stat;
use nix::unistd::{AccessFlags, faccessat};

use crate::error::{Context, Error, Kind, Result, strerror};

/// Executes `argv` in place of this process, with its environment, and searches PATH for the program.
/// Returns only if the execution failed. The program starts with the default action for SIGPIPE, with the
/// action for SIGCHLD that this program started with, and with an empty signal mask. The shell runs a
/// script without `#!`, as POSIX demands of execvp(3).
pub fn exec(argv: &[OsString]) -> Error {
    let Some((program, args)) = argv.split_first() else {
        return Error::usage("no program given to run");
    };
    let error = try_replace(Command::new(program).args(args));
    if error.raw_os_error() != Some(Errno::ENOEXEC as i32) {
        return failure(program, &error);
    }
    match find(program, env::var_os("PATH").as_deref()) {
        Ok(script) => replace(Command::new("/bin/sh").arg(script).args(args)),
        Err(error) => error,
    }
}

/// Executes a command in place of this process, like [`exec`]. A script without `#!` is an error with musl.
pub fn replace(command: &mut Command) -> Error {
    let error = try_replace(command);
    failure(command.get_program(), &error)
}

fn try_replace(command: &mut Command) -> io::Error {
    crate::platform::restore_sigchld();
    // sigprocmask(2) with a valid mask does not fail; the standard library does not change the mask.
    let _: nix::Result<()> = nix::sys::signal::SigSet::empty().thread_set_mask();
    // nix::execvp would leave SIGPIPE ignored in the payload.
    let error = command.exec();
    // The standard library has set the default action for SIGPIPE, and a write of the error may raise SIGPIPE.
    crate::platform::ignore_sigpipe();
    error
}

pub(crate) fn failure(program: &OsStr, error: &io::Error) -> Error {
    let kind = match error.raw_os_error() {
        _ if error.kind() == ErrorKind::NotFound => Kind::NotFound,
        None => Kind::Usage, // a NUL byte in an argument
        Some(_) => Kind::NotExecutable,
    };
    let failed =
        Error::with_kind(kind, format_args!("exec {}: {}", program.display(), strerror(error)));
    let path = env::var_os("PATH");
    let hint = match existing(program, path.as_deref()) {
        Some(file) => error.raw_os_error().and_then(|errno| advice::of(&file, errno)),
        None => Some(advice::of_absent(program, path.as_deref())),
    };
    match hint {
        Some(hint) => failed.hint(hint),
        None => failed,
    }
}

/// The file that a program's name leads to.
fn existing(program: &OsStr, path: Option<&OsStr>) -> Option<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return Some(program.into());
    }
    candidates(program, path).into_iter().find(|path| path.exists())
}

/// The path that execvp(3) searches without PATH.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// Finds a program as execvp(3) does.
pub fn find(name: &OsStr, path: Option<&OsStr>) -> Result<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        return Ok(name.into());
    }
    search(name, path).map_err(|errno| {
        let error = failure(name, &errno.into());
        match errno {
            // The environment of a payload may have another PATH than this process.
            Errno::ENOENT => error.without_hint().hint(advice::of_absent(name, path)),
            _ => error,
        }
    })
}

/// [`find`] of a name without a slash. ENOENT and EACCES mean that no file of PATH can be executed.
fn search(name: &OsStr, path: Option<&OsStr>) -> std::result::Result<PathBuf, Errno> {
    let mut refused = false;
    for candidate in candidates(name, path) {
        match executable(&candidate)? {
            Some(true) => return Ok(candidate),
            Some(false) => refused = true,
            None => {}
        }
    }
    Err(if refused { Errno::EACCES } else { Errno::ENOENT })
}

/// The paths where execvp(3) looks for a program, in order.
pub(crate) fn candidates(name: &OsStr, path: Option<&OsStr>) -> Vec<PathBuf> {
    if name.is_empty() {
        return Vec::new();
    }
    let path = path.unwrap_or(OsStr::new(DEFAULT_PATH));
    let candidate = |directory: PathBuf| {
        if directory.as_os_str().is_empty() {
            Path::new(".").join(name)
        } else {
            directory.join(name)
        }
    };
    env::split_paths(path).map(candidate).collect()
}

/// The path of another tool of jc: beside this program, or else in PATH.
pub fn locate_tool(name: &OsStr) -> Result<PathBuf> {
    let own = match env::current_exe() {
        // Without a procfs the standard library returns an error that has no errno.
        Err(error) if error.raw_os_error().is_none() => None,
        found => Some(found.op("find this program")?),
    };
    let beside = own.and_then(|own| Some(own.parent()?.join(name)));
    if let Some(beside) = beside
        && executable(&beside).on("access", &beside)? == Some(true)
    {
        return Ok(beside);
    }
    let found = env::var_os("PATH").map_or(Err(Errno::ENOENT), |path| search(name, Some(&path)));
    found.map_err(|errno| match errno {
        Errno::ENOENT | Errno::EACCES => {
            let name = name.display();
            Error::new(format_args!("{name}: not found beside this program or in PATH"))
        }
        _ => failure(name, &errno.into()),
    })
}

/// The word by which a shell runs a tool: the name if PATH leads to the same file, or else the path.
pub fn display_name(tool: &Path) -> OsString {
    let by_name = || {
        let name = tool.file_name()?;
        let found = find(name, Some(&env::var_os("PATH")?)).ok()?;
        same(&found, tool).then(|| name.to_owned())
    };
    by_name().unwrap_or_else(|| tool.into())
}

fn same(a: &Path, b: &Path) -> bool {
    let identity = |path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    identity(a) == identity(b)
}

/// Checks that this user may execute a file. The errors are those of execve(2) for a file that is absent or not
/// executable.
pub fn check(program: &OsStr, path: &Path) -> Result<()> {
    let errno = match executable(path) {
        Ok(Some(true)) => return Ok(()),
        Ok(Some(false)) => Errno::EACCES,
        Ok(None) => Errno::ENOENT,
        Err(errno) => errno,
    };
    Err(failure(program, &errno.into()))
}

/// Whether this user may execute the file, if it exists. The errno of a path that execvp(3) passes over
/// is absence, every other one is an error.
fn executable(path: &Path) -> std::result::Result<Option<bool>, Errno> {
    match access(path) {
        Ok(()) => match stat(path) {
            Ok(found) => Ok(Some(found.st_mode & libc::S_IFMT != libc::S_IFDIR)),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(errno) => Err(errno),
        },
        Err(Errno::EACCES) => Ok(Some(false)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Whether the effective user may execute the path. A seccomp filter that is older than faccessat2(2) refuses that
/// call with EPERM; faccessat(2) then answers for the real user, who is the effective one behind a filter.
fn access(path: &Path) -> std::result::Result<(), Errno> {
    match faccessat(AT_FDCWD, path, AccessFlags::X_OK, AtFlags::AT_EACCESS) {
        Err(Errno::EPERM) => faccessat(AT_FDCWD, path, AccessFlags::X_OK, AtFlags::empty()),
        answered => answered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn says_why_a_program_cannot_be_executed() {
        for (program, kind, message) in [
            ("/nonexistent/x", Kind::NotFound, "exec /nonexistent/x: No such file or directory"),
            ("/", Kind::NotExecutable, "exec /: Permission denied"),
            ("/etc/passwd/x", Kind::NotExecutable, "exec /etc/passwd/x: Not a directory"),
        ] {
            let error = exec(&[program.into()]);
            assert_eq!((error.kind(), error.to_string().as_str()), (kind, message));
        }
    }

    #[test]
    fn programs_are_searched_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for (name, mode) in [("a/x", 0o644), ("b/x", 0o755), ("a/y", 0o644)] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::create_dir_all(dir.path().join("a/z")).unwrap();
        std::os::unix::fs::symlink("loop", dir.path().join("a/loop")).unwrap();
        let path = ["none", "a", "b"].map(|name| dir.path().join(name));
        let path = std::env::join_paths(path).unwrap();
        let found = |name: &str| find(name.as_ref(), Some(&path));
        assert_eq!(found("x").unwrap(), dir.path().join("b/x"));
        assert_eq!(find("./w".as_ref(), Some(&path)).unwrap(), Path::new("./w"));
        for (name, kind, message) in [
            ("y", Kind::NotExecutable, "exec y: Permission denied"),
            ("z", Kind::NotExecutable, "exec z: Permission denied"),
            ("w", Kind::NotFound, "exec w: No such file or directory"),
            ("", Kind::NotFound, "exec : No such file or directory"),
            ("loop", Kind::NotExecutable, "exec loop: Too many levels of symbolic links"),
        ] {
            let error = found(name).unwrap_err();
            assert_eq!((error.kind(), error.to_string().as_str()), (kind, message));
        }
    }
}
