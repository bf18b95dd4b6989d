//! `--init-fd`: a PID 1 that forwards signals and reaps orphans, with the root and the privileges of the payload.
//!
//! In the last step, this program executes itself once more as PID 1, from a read-only mount, with the name `jc-init`
//! and the arguments, environment, credentials and filter of the payload. A payload that may trace PID 1 finds nothing
//! of the host in its memory, command line and files.

use std::convert::Infallible;
use std::env;
use std::ffi::{OsStr, OsString};
use std::iter::once;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use jc_unshare::events::StatusFd;
use jc_unshare::exec::{find, replace};
use jc_unshare::{Context, Error, Result, info};
use nix::sys::prctl::set_name;
use nix::unistd::getpid;
use rustix::io::{FdFlags, fcntl_setfd};

use super::program::{read_only_self, strings};
use super::started::Started;
use crate::TOOL;
use crate::environment::Environment;
use crate::linux::args::Args;
use crate::linux::sys;

/// The name of this program as PID 1. The numbers of its descriptors and the arguments of the payload follow.
const NAME: &str = "jc-init";

/// The parts of a PID 1 to execute.
pub struct Init {
    program: OwnedFd,
    /// The pipe to the waiting link outside of the PID namespace.
    events: OwnedFd,
}

impl Init {
    /// Opens the parts of a PID 1, in a mount namespace of this process's own, before its root changes. `None`: the
    /// command line lacks `--init-fd`. Usage errors: this process is not PID 1, or the descriptor is not open.
    pub fn new(args: &Args) -> Result<Option<Self>> {
        let Some(number) = args.process.init_fd else { return Ok(None) };
        if getpid().as_raw() != 1 {
            return Err(Error::usage(format_args!(
                "--init-fd {number}: needs a process that is PID 1"
            ))
            .hint(format_args!("jc-unshare -p --init-fd {number} starts it")));
        }
        let events = info::inherit_fd(number, "--init-fd")?;
        Ok(Some(Self { program: read_only_self()?, events }))
    }

    /// The file that is executed as PID 1.
    pub fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    /// Replaces this process by PID 1, which starts the payload. Returns only an error.
    pub fn execute(
        &self,
        started: Option<&Started>,
        (name, arguments): (&OsStr, &[OsString]),
        environment: Environment,
    ) -> Error {
        let execute = || -> Result<Infallible> {
            fcntl_setfd(&self.events, FdFlags::empty()).op("F_SETFD")?;
            let mut numbers = self.events.as_raw_fd().to_string();
            if let Some(started) = started {
                fcntl_setfd(started, FdFlags::empty()).op("F_SETFD")?;
                numbers = format!("{numbers},{}", started.as_fd().as_raw_fd());
            }
            let payload = once(name.to_owned()).chain(arguments.iter().cloned());
            let arguments = strings([NAME.into(), numbers.into()].into_iter().chain(payload))?;
            Err(sys::execute(self.program.as_fd(), &arguments, &environment.strings()?))
                .op("execveat jc-init")
        };
        let Err(error) = execute();
        error
    }
}

/// Runs this process as PID 1 to the end of the payload, if its name is `jc-init`.
pub fn started_as_init() -> Option<ExitCode> {
    let mut arguments = env::args_os();
    if arguments.next()? != NAME {
        return None;
    }
    TOOL.begin();
    let numbers = arguments.next().unwrap_or_default();
    let payload: Vec<OsString> = arguments.collect();
    Some(match run(&numbers, &payload) {
        Ok(error) | Err(error) => TOOL.fail(&error),
    })
}

/// Starts the payload and waits for its end. Returns only an error.
fn run(numbers: &OsStr, payload: &[OsString]) -> Result<Error> {
    let (name, rest) =
        payload.split_first().ok_or_else(|| Error::usage("no program given to run"))?;
    let numbers = numbers.to_str().unwrap_or_default().split(',');
    let parse = |number: &str| {
        let parsed = number.parse::<u32>();
        parsed.map_err(|_| Error::usage(format_args!("{NAME} {number}: not a descriptor")))
    };
    let mut numbers = numbers.map(parse).collect::<Result<Vec<u32>>>()?.into_iter();
    let events = info::inherit_fd(numbers.next().ok_or_else(|| Error::usage(NAME))?, NAME)?;
    let status = numbers.next().map(|number| StatusFd::open(TOOL, number)?.close_on_exec());
    let status = status.transpose()?;
    set_name(c"jc-init").op("PR_SET_NAME")?;
    Ok(jc_unshare::init::run(TOOL, events, || {
        let error = match find(name, env::var_os("PATH").as_deref()) {
            Ok(path) => replace(Command::new(path).arg0(name).args(rest)),
            Err(error) => error,
        };
        status.iter().for_each(|status| status.exec_failed(&error));
        error
    }))
}
