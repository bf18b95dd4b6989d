//! `--init-fd`: a PID 1 that reaps and forwards signals, in the container's root and with nothing that the
//! payload lacks.
//!
//! When all else is done, this program executes itself once more as PID 1, from a read-only mount and under
//! the name `jc-init`, with the payload's arguments, environment, credentials and filter. So the memory, the
//! command line and the files of PID 1 show nothing of the host to a payload that may trace it.

use std::convert::Infallible;
use std::env;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
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

/// The name that this program has as PID 1, followed by its descriptors and the payload's arguments.
const NAME: &str = "jc-init";

/// A PID 1 that is to be executed.
pub struct Init {
    program: OwnedFd,
    /// The pipe to the link that waits outside.
    tell: OwnedFd,
}

impl Init {
    /// Finds out whether there is to be an init, while this program's file can be found, in a mount
    /// namespace of its own. Usage error: this process is not PID 1, or the descriptor is not open.
    pub fn new(args: &Args) -> Result<Option<Self>> {
        let Some(number) = args.init_fd else { return Ok(None) };
        if getpid().as_raw() != 1 {
            return Err(Error::usage(format_args!(
                "--init-fd {number}: needs a process that is PID 1"
            ))
            .hint(format_args!("jc-unshare -p --init-fd {number} starts it")));
        }
        let tell = info::take(number, "--init-fd")?;
        Ok(Some(Self { program: read_only_self()?, tell }))
    }

    /// Becomes PID 1 with this payload. Returns only an error.
    pub fn execute(
        &self,
        started: Option<&Started>,
        payload: &[OsString],
        environment: Environment,
    ) -> Error {
        let execute = || -> Result<Infallible> {
            fcntl_setfd(&self.tell, FdFlags::empty()).op("F_SETFD")?;
            let mut numbers = self.tell.as_raw_fd().to_string();
            if let Some(started) = started {
                fcntl_setfd(started, FdFlags::empty()).op("F_SETFD")?;
                numbers = format!("{numbers},{}", started.as_fd().as_raw_fd());
            }
            let own = [NAME.into(), numbers.into()];
            let arguments = strings(own.into_iter().chain(payload.iter().cloned()))?;
            Err(sys::execute(self.program.as_fd(), &arguments, &environment.strings()?))
                .op("execveat jc-init")
        };
        let Err(error) = execute();
        error
    }
}

/// Runs as PID 1 if this program was executed as that, to the end of the payload.
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

/// Returns only an error.
fn run(numbers: &OsStr, payload: &[OsString]) -> Result<Error> {
    let (name, rest) =
        payload.split_first().ok_or_else(|| Error::usage("no program given to run"))?;
    let numbers = numbers.to_str().unwrap_or_default().split(',');
    let parse = |number: &str| {
        let parsed = number.parse::<u32>();
        parsed.map_err(|_| Error::usage(format_args!("{NAME} {number}: not a descriptor")))
    };
    let mut numbers = numbers.map(parse).collect::<Result<Vec<u32>>>()?.into_iter();
    let tell = info::take(numbers.next().ok_or_else(|| Error::usage(NAME))?, NAME)?;
    let status = numbers.next().map(|number| StatusFd::open(TOOL, number)?.close_on_exec());
    let status = status.transpose()?;
    set_name(c"jc-init").op("PR_SET_NAME")?;
    Ok(jc_unshare::init::run(TOOL, tell, || {
        let error = match find(name, env::var_os("PATH").as_deref()) {
            Ok(path) => replace(Command::new(path).arg0(name).args(rest)),
            Err(error) => error,
        };
        status.iter().for_each(|status| status.exec_failed(&error));
        error
    }))
}
