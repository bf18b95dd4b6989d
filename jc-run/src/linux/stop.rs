//! `jc-stop`, and the kill of `jc-rm -f`: a signal, and after some time SIGKILL, both sent through descriptors of
//! processes.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::{Arg, ArgMatches, Command, value_parser};
use jc_unshare::exec::locate_tool;
use jc_unshare::process::{Process, ends_until, send};
use jc_unshare::{Error, Result, Tool, signals};
use nix::libc::{SIGCONT, SIGKILL};

use super::dir::RecordedContainer;
use super::state::{State, Status};
use super::tools;
use crate::link::Opt;

/// The name and exit codes of the program.
pub const TOOL: Tool = Tool::source("jc-stop");

/// The longest time between the kill and the end of a container.
const KILLED: Duration = Duration::from_secs(10);

/// The time to wait for the end of a container before its cgroup is thawed.
const AT_ONCE: Duration = Duration::from_millis(200);

/// Builds the command line parser.
pub fn command() -> Command {
    tools::command("jc-stop", "Stop containers", "jc-stop [options] ID...")
        .arg(
            Arg::new("time")
                .short('t')
                .long("time")
                .value_name("SECONDS")
                .value_parser(value_parser!(u32))
                .default_value("10")
                .help("Kill after this many seconds"),
        )
        .arg(
            Arg::new("signal")
                .short('s')
                .long("signal")
                .value_name("SIGNAL")
                .help("Stop with this signal instead of the container's; SIGKILL follows"),
        )
        .arg(tools::ids())
}

/// Stops the containers, all at once.
pub fn run(matches: &ArgMatches) -> Result<ExitCode> {
    let (found, mut errors) = tools::named(matches)?;
    let seconds = matches.get_one::<u32>("time").copied().unwrap_or(10);
    let signal = matches.get_one::<String>("signal").map(String::as_str);
    errors.extend(stop(&found, signal, Duration::from_secs(seconds.into()))?);
    Ok(tools::outcome(TOOL, &errors))
}

/// A container that this process ends.
struct Ending<'a> {
    container: &'a RecordedContainer,
    /// The container has ended when its supervisor has.
    supervisor: OwnedFd,
}

impl<'a> Ending<'a> {
    /// Opens the supervisor of a container, and sends it a signal other than SIGKILL, which the supervisor forwards. A
    /// supervisor does the default action where a PID 1 would not. `None`: the container has ended.
    fn begin(container: &'a RecordedContainer, signal: i32) -> Result<Option<Self>> {
        let state = &container.state;
        let supervisor = state.process("supervisor").filter(|_| state.status != Status::Stopped);
        let Some(supervisor) = supervisor.map(Process::open).transpose()?.flatten() else {
            return Ok(None);
        };
        let ending = Ending { container, supervisor };
        if signal != SIGKILL {
            ending.signal(signal)?;
        }
        Ok(Some(ending))
    }

    /// Sends the supervisor a signal, then SIGCONT: a supervisor or a link that is stopped takes signals
    /// only when it continues.
    fn signal(&self, signal: i32) -> Result<()> {
        for signal in [signal, SIGCONT] {
            send(&self.supervisor, signal)?;
        }
        Ok(())
    }

    /// Kills the payload. Before the start of the payload, kills the supervisor, with which the chain ends.
    fn kill(&self) -> Result<()> {
        match self.container.state.process("process") {
            Some(payload) => {
                payload.signal(SIGKILL)?;
                send(&self.supervisor, SIGCONT).map(drop)
            }
            None => send(&self.supervisor, SIGKILL).map(drop),
        }
    }

    /// Thaws the container's cgroup, since a frozen process handles no signal, and a frozen link reaps no child. Errors are
    /// ignored, since the later wait shows which containers have ended.
    fn thaw(&self) {
        let join = self.container.state.join.as_ref();
        let Some(group) = join.and_then(|join| join.cgroup.as_ref()) else { return };
        let options = group.parent_option().into_iter().chain([Opt::new("--thaw", &group.name)]);
        let Ok(program) = locate_tool("jc-cgroup".as_ref()) else { return };
        let mut command = std::process::Command::new(program);
        command.args(options.flat_map(|option| option.words()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let _: io::Result<_> = command.status();
    }
}

/// Sends each container its signal, and kills those that have not ended when the time is over. Returns the errors of
/// single containers.
pub fn stop(
    containers: &[RecordedContainer],
    signal: Option<&str>,
    time: Duration,
) -> Result<Vec<Error>> {
    let signals: Result<Vec<i32>> =
        containers.iter().map(|container| stop_signal(&container.state, signal)).collect();
    let (mut signalled, mut left, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for (container, signal) in containers.iter().zip(signals?) {
        match Ending::begin(container, signal) {
            Ok(None) => {}
            Ok(Some(ending)) if signal == SIGKILL => left.push(ending),
            Ok(Some(ending)) => signalled.push(ending),
            Err(error) => errors.push(error),
        }
    }
    left.extend(await_end(signalled, Instant::now() + time)?);
    errors.extend(left.iter().filter_map(|ending| ending.kill().err()));
    for still in await_end(left, Instant::now() + KILLED)? {
        errors.push(still.container.state.error("still running 10 s after SIGKILL"));
    }
    Ok(errors)
}

/// Waits for each container until the deadline, and thaws the cgroups of containers that do not end at once. Returns the
/// containers that have not ended.
fn await_end(ending: Vec<Ending<'_>>, deadline: Instant) -> Result<Vec<Ending<'_>>> {
    let left = await_until(ending, deadline.min(Instant::now() + AT_ONCE))?;
    left.iter().for_each(Ending::thaw);
    await_until(left, deadline)
}

fn await_until(ending: Vec<Ending<'_>>, deadline: Instant) -> Result<Vec<Ending<'_>>> {
    let mut left = Vec::new();
    for one in ending {
        if !ends_until(&one.supervisor, deadline)? {
            left.push(one);
        }
    }
    Ok(left)
}

fn signal_of(state: &State, signal: Option<&str>) -> Option<i32> {
    signals::number(signal.or(state.get("stop-signal")).unwrap_or("TERM"))
}

fn stop_signal(state: &State, signal: Option<&str>) -> Result<i32> {
    signal_of(state, signal).ok_or_else(|| {
        let word = signal.or(state.get("stop-signal")).unwrap_or_default();
        Error::usage(format_args!("{word}: not a signal"))
    })
}
