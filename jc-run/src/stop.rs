//! `jc-stop`, and the end of a container that `jc-rm -f` wants: a signal, and when that has had its
//! time, SIGKILL; both through descriptors of the processes that are meant.

use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Arg, ArgMatches, Command, value_parser};
use jc_unshare::process::ends_until;
use jc_unshare::{Error, Result, Tool, signals};
use nix::libc::SIGKILL;

use crate::dir::Found;
use crate::state::{State, Status};
use crate::tools;

/// The tool's name and contract.
pub const TOOL: Tool = Tool::source("jc-stop");

/// How long a container may take to end that has been killed.
const KILLED: Duration = Duration::from_secs(10);

/// The command line.
pub fn command() -> Command {
    tools::command("jc-stop", "Stop containers", "jc-stop [options] ID...")
        .arg(
            Arg::new("time")
                .short('t')
                .long("time")
                .value_name("SECONDS")
                .value_parser(value_parser!(u32))
                .default_value("10")
                .help("Kill what has not ended by then"),
        )
        .arg(
            Arg::new("signal")
                .short('s')
                .long("signal")
                .value_name("SIGNAL")
                .help("Send this one first, instead of the container's stop signal"),
        )
        .arg(tools::ids())
}

/// Stops the containers, all at once.
pub fn run(matches: &ArgMatches) -> Result<ExitCode> {
    let found = tools::named(matches)?;
    let seconds = matches.get_one::<u32>("time").copied().unwrap_or(10);
    let signal = matches.get_one::<String>("signal").map(String::as_str);
    stop(&found, signal, Duration::from_secs(seconds.into()))?;
    Ok(ExitCode::SUCCESS)
}

/// A container that is to end.
struct Ending<'a> {
    state: &'a State,
    /// Its supervisor: the container has ended when that has.
    supervisor: OwnedFd,
}

/// Sends each its signal, and kills those that have not ended when the time is over.
pub fn stop(found: &[Found], asked: Option<&str>, time: Duration) -> Result<()> {
    let states: Vec<&State> = found.iter().map(|found| &found.state).collect();
    let signals: Result<Vec<i32>> = states.iter().map(|state| stop_signal(state, asked)).collect();
    let mut ending = Vec::new();
    for (state, signal) in states.into_iter().zip(signals?) {
        let supervisor = state.process("supervisor").filter(|_| state.status != Status::Stopped);
        let Some(supervisor) = supervisor else { continue };
        if let Some(pidfd) = supervisor.open() {
            // The supervisor hands it on, and does its default action where a PID 1 would not.
            if signal != SIGKILL {
                supervisor.signal(signal)?;
            }
            ending.push(Ending { state, supervisor: pidfd });
        }
    }
    let signalled = |ending: &Ending| asked_or_own(ending.state, asked) != Some(SIGKILL);
    let deadline = Instant::now() + time;
    let left =
        await_end(ending, |ending| if signalled(ending) { deadline } else { Instant::now() })?;
    for Ending { state, .. } in &left {
        match state.process("process") {
            Some(payload) => drop(payload.signal(SIGKILL)?),
            // Not even begun: its chain goes with its supervisor.
            None => drop(state.process("supervisor").map(|s| s.signal(SIGKILL)).transpose()?),
        }
    }
    let deadline = Instant::now() + KILLED;
    match await_end(left, |_| deadline)?.first() {
        None => Ok(()),
        Some(still) => {
            Err(Error::new(format_args!("{}: killed, and has not ended", still.state.id)))
        }
    }
}

/// Waits for each until its deadline; gives those that have not ended.
fn await_end<'a>(
    ending: Vec<Ending<'a>>,
    deadline: impl Fn(&Ending) -> Instant,
) -> Result<Vec<Ending<'a>>> {
    let mut left = Vec::new();
    for one in ending {
        if !ends_until(&one.supervisor, deadline(&one))? {
            left.push(one);
        }
    }
    Ok(left)
}

fn asked_or_own(state: &State, asked: Option<&str>) -> Option<i32> {
    signals::number(asked.or(state.get("stop-signal")).unwrap_or("TERM"))
}

fn stop_signal(state: &State, asked: Option<&str>) -> Result<i32> {
    asked_or_own(state, asked).ok_or_else(|| {
        let word = asked.or(state.get("stop-signal")).unwrap_or_default();
        Error::usage(format_args!("{word}: not a signal"))
    })
}
