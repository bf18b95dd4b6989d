//! `jc-run`: from the command line to the end of a container.

use std::ffi::OsStr;
use std::io::{stderr, stdout};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;

use clap::ArgMatches;
use jc_unshare::{Context, Error, Result, id};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::base_path::BasePath;
use super::compose::compose;
use super::console::Console;
use super::detach::detach;
use super::events::Events;
use super::pull::pull;
use super::supervise::{Container, Stdio};
use super::terminal::Terminal;
use crate::link::Opt;
use crate::options::{ImageSource, LifeOptions, Mode, Options};
use crate::{TOOL, source};

/// Runs the container of a command line.
pub fn run(matches: &ArgMatches) -> Result<ExitCode> {
    let mut options = Options::parse(matches)?;
    options.payload.has_init |= needs_init(&options)?;
    let life = &options.life;
    // This check comes first: a number that is not open yet may become that of a descriptor which this process opens.
    let events = Events::open(life.status_fd)?;
    let base_path = BasePath::new(life.state_dir.clone())?;
    let pulled = |image: &ImageSource| pull(image, &options.namespaces);
    let record = source::read(&options.source, &options.program.arguments, pulled)?;
    let mut bundle = compose(&options, &record, &id::random()?, &base_path)?;
    bundle.chain = bundle.chain.locate()?;
    if let Some(form) = options.print {
        return bundle.chain.print(form, || bundle.to_shell());
    }
    let has_terminal = life.has_terminal && !life.detached;
    let terminal = has_terminal.then(Terminal::open).transpose()?;
    let mut container = Container::create(&base_path, bundle, events)?;
    match terminal {
        _ if life.detached => detach(container, stdio(life)),
        Some(terminal) => {
            let path = container.path("console");
            let console = container.or_remove(Console::listen(&path))?;
            terminal.attend(TOOL, (console, &path), || {
                container.run(Stdio::Callers, || Ok(())).map(|exit| exit.code())
            })
        }
        None => container.run(Stdio::Callers, || Ok(())).map(|exit| {
            if let Some(hint) = advice(&options, exit.code()) {
                TOOL.report(&Error::new(format_args!("hint: {hint}")));
            }
            exit.end()
        }),
    }
}

/// A hint for an exit code whose cause may be an option that a link does not know.
fn advice(options: &Options, code: u8) -> Option<&'static str> {
    const FAILED: u8 = 125;
    let needs_group = options.limits.passed.is_empty() && options.namespaces.pid != Mode::Private;
    match code {
        0 => None,
        FAILED if needs_group && !geteuid().is_root() => {
            Some("--pid host and --pid container:ID need a cgroup, by which all processes end")
        }
        FAILED => None,
        _ if is_other_user_outside(options) => {
            Some("the user of -u is another one outside: --userns keep-id makes it the caller")
        }
        _ => None,
    }
}

/// Whether `-u` has the number of a caller who is not root, and a directory of the host is mounted: outside of the user
/// namespace the number is that of a subordinate ID, which has no permission for files of the caller.
fn is_other_user_outside(options: &Options) -> bool {
    let uid = geteuid();
    let is_caller = |option: &Opt| {
        let value = option.value().and_then(OsStr::to_str).unwrap_or_default();
        option.name() == "-u" && value.split(':').next() == Some(&uid.as_raw().to_string())
    };
    let binds = options.root.passed.iter().any(|option| option.name() == "-v");
    !uid.is_root()
        && binds
        && options.namespaces.user.is_none()
        && options.payload.passed.iter().any(is_caller)
}

/// Whether the payload may write to a closed pipe: the kernel sends PID 1 no SIGPIPE (pid_namespaces(7)), so a shell
/// that is PID 1 would run on. A PID 1 in front of the payload costs 0.5 ms, which other outputs need not pay.
fn needs_init(options: &Options) -> Result<bool> {
    let life = &options.life;
    if options.print.is_some() || life.detached || life.has_terminal {
        return Ok(false);
    }
    let is_pipe = |fd: BorrowedFd<'_>| match fstat(fd) {
        Ok(stat) => {
            Ok([FileType::Fifo, FileType::Socket].contains(&FileType::from_raw_mode(stat.st_mode)))
        }
        // A closed output.
        Err(Errno::BADF) => Ok(false),
        Err(error) => Err(error).op("fstat"),
    };
    let writes_to_pipe = is_pipe(stdout().as_fd())? || is_pipe(stderr().as_fd())?;
    Ok(writes_to_pipe && options.namespaces.pid == Mode::Private)
}

/// The standard streams of a detached payload.
fn stdio(life: &LifeOptions) -> Stdio {
    match (life.has_terminal, life.interactive) {
        (true, _) => Stdio::LoggedTerminal,
        (false, true) => Stdio::LogsAndFifo,
        (false, false) => Stdio::Logs,
    }
}
