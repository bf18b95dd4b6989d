//! `-d`: a supervisor in a session of its own, and a parent that waits until the payload has been
//! executed.

use std::fs::File;
use std::io::{Read, Write, copy, pipe, stderr};
use std::os::unix::fs::OpenOptionsExt;
use std::process::ExitCode;

use jc_unshare::supervise::Exit;
use jc_unshare::sys::{Fork, fork};
use jc_unshare::{Context, Error, Result, print};
use rustix::process::{WaitOptions, setsid, waitpid};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::TOOL;
use crate::supervise::{Container, Stdio};

/// Starts the container and prints its ID; or fails as it fails.
pub fn detach(container: Container, stdio: Stdio) -> Result<ExitCode> {
    let (mut begun, tell) = pipe().op("pipe")?;
    let id = container.id();
    match fork(0, None).op("fork")? {
        Fork::Child => {
            drop(begun);
            match supervise(container, stdio, tell) {
                Ok(exit) => std::process::exit(exit.code().into()),
                Err(error) => TOOL.exit(&error),
            }
        }
        Fork::Parent { pid, .. } => {
            drop((tell, container));
            if begun.read(&mut [0]).op("read")? > 0 {
                return print(format!("{id}\n")).map(|()| ExitCode::SUCCESS);
            }
            let ended = waitpid(Some(pid), WaitOptions::empty()).op("waitpid")?;
            match ended.and_then(|(_, status)| status.exit_status()) {
                // The supervisor has said why.
                Some(code) => Ok(ExitCode::from(code as u8)),
                None => Err(Error::new("the supervisor was killed")),
            }
        }
    }
}

fn supervise(container: Container, stdio: Stdio, mut tell: impl Write) -> Result<Exit> {
    setsid().op("setsid")?;
    let null = File::options().read(true).write(true).open("/dev/null").on("open", "/dev/null")?;
    dup2_stdin(&null).and_then(|()| dup2_stdout(&null)).op("dup2")?;
    let errors = container.path("stderr");
    // Open, as the state dir of what has not begun is removed.
    let errors = File::options()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&errors)
        .on("open", &errors)?;
    let exit = container.run(stdio, move || {
        dup2_stderr(&null).op("dup2")?;
        tell.write_all(b"!").op("tell that it has begun")
    });
    // On the caller's stderr, if that has not been let go: what a link had to say.
    copy(&mut &errors, &mut stderr()).op("write stderr")?;
    exit
}
