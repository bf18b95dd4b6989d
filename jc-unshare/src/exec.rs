//! Executing the tail of a chain: the program and arguments that a link leaves over.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::error::{Error, Kind, strerror};

/// Replaces this process by `argv`, found through PATH, with its environment. Returns only to say
/// why that failed. SIGPIPE is set back to its default, SIGCHLD to what it was when this program
/// began, and the signal mask emptied on the way.
pub fn exec(argv: &[OsString]) -> Error {
    match argv.split_first() {
        Some((program, args)) => replace(Command::new(program).args(args)),
        None => Error::usage("no program given to run"),
    }
}

/// Replaces this process by the command, like [`exec`].
pub fn replace(command: &mut Command) -> Error {
    #[cfg(target_os = "linux")]
    crate::sys::restore_sigchld();
    // It cannot fail; the standard library leaves the mask alone.
    let _: nix::Result<()> = nix::sys::signal::SigSet::empty().thread_set_mask();
    // Not nix::execvp: that would leave SIGPIPE ignored in the payload.
    let error = command.exec();
    let kind = match error.raw_os_error() {
        _ if error.kind() == ErrorKind::NotFound => Kind::NotFound,
        None => Kind::Usage, // a NUL byte in an argument
        Some(_) => Kind::NotExecutable,
    };
    let program = command.get_program().display();
    Error::with_kind(kind, format_args!("exec {program}: {}", strerror(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
