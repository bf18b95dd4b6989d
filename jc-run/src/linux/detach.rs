//! `-d`: a supervisor in a session of its own, which prints the ID once the payload has been executed, and
//! a parent that waits for that.

use std::cell::Cell;
use std::fs::File;
use std::io::{ErrorKind, Read, Write, copy, pipe, stderr, stdout};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::ExitCode;

use jc_unshare::supervise::Exit;
use jc_unshare::sys::{Fork, fork};
use jc_unshare::{Context, Error, Result};
use rustix::process::{WaitOptions, setsid, waitpid};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::supervise::{Container, Stdio};
use crate::TOOL;

/// Starts the container and prints its ID. Returns the exit code of the container if its start fails.
pub fn detach(mut container: Container, stdio: Stdio) -> Result<ExitCode> {
    let (mut begun, ready) = container.or_remove(pipe().op("pipe"))?;
    match container.or_remove(fork(0, None).op("fork"))? {
        Fork::Child => {
            drop(begun);
            match supervise(container, stdio, ready) {
                Ok(exit) => std::process::exit(exit.code().into()),
                Err(error) => TOOL.exit(&error),
            }
        }
        Fork::Parent { pid, .. } => {
            drop((ready, container));
            if begun.read(&mut [0]).op("read")? > 0 {
                return Ok(ExitCode::SUCCESS);
            }
            let ended = waitpid(Some(pid), WaitOptions::empty()).op("waitpid")?;
            match ended.and_then(|(_, status)| status.exit_status()) {
                // The supervisor has written the error.
                Some(code) => Ok(ExitCode::from(code as u8)),
                None => Err(Error::new("the supervisor was killed")),
            }
        }
    }
}

/// Files that a supervisor inherits from its caller, or needs after the removal of the state directory.
struct Files {
    /// The stdout of the caller, for the ID.
    output: File,
    null: File,
    /// The log of stderr.
    errors: File,
}

impl Files {
    fn open(container: &Container) -> Result<Self> {
        let output = stdout().as_fd().try_clone_to_owned().op("dup stdout")?.into();
        let null = File::options().read(true).write(true).open("/dev/null");
        let null = null.on("open", "/dev/null")?;
        let path = container.path("stderr");
        let errors = File::options().read(true).append(true).create(true).mode(0o600).open(&path);
        Ok(Self { output, null, errors: errors.on("open", &path)? })
    }
}

fn supervise(mut container: Container, stdio: Stdio, mut ready: impl Write) -> Result<Exit> {
    let files = setsid().op("setsid").and_then(|_| Files::open(&container)).and_then(|files| {
        dup2_stdin(&files.null).and_then(|()| dup2_stdout(&files.null)).op("dup2")?;
        Ok(files)
    });
    let Files { output, null, errors } = container.or_remove(files)?;
    let (id, mut output) = (container.id(), Some(output));
    let has_begun = Cell::new(false);
    let exit = container.run(stdio, || {
        has_begun.set(true);
        // If the ID cannot be printed, the container ends.
        output.take().map_or(Ok(()), |output| print_id(output, &id))?;
        dup2_stderr(&null).op("dup2")?;
        ready.write_all(b"!").op("write to the caller")
    });
    if !has_begun.get() {
        // The errors of a link.
        copy(&mut &errors, &mut stderr()).op("write stderr")?;
    }
    exit
}

fn print_id(mut output: File, id: &str) -> Result<()> {
    match output.write_all(format!("{id}\n").as_bytes()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Err(Error::quiet()),
        written => written.op("write stdout"),
    }
}
