//! `jc-list`: what containers there are; and what dead ones have left goes.

use std::cmp::Reverse;
use std::process::{Command as Process, ExitCode, Stdio};

use clap::{Arg, ArgAction, ArgMatches, Command};
use jc_unshare::escape::{self, Escaped};
use jc_unshare::exec::tool;
use jc_unshare::{Error, Result, Tool, print, table};

use crate::place::Place;
use crate::state::{State, Status, now};
use crate::{anonymous, dir, tools};

/// The tool's name and contract.
pub const TOOL: Tool = Tool::source("jc-list");

/// The command line.
pub fn command() -> Command {
    let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    tools::command("jc-list", "List containers", "jc-list [options]")
        .arg(flag("all").short('a').help("List containers that have ended too"))
        .arg(flag("quiet").short('q').help("Print only IDs"))
        .arg(
            flag("json").conflicts_with("quiet").help("Print an object of JSON for each container"),
        )
}

/// Sweeps, and prints. A state that cannot be read is reported, and the others are listed.
pub fn run(matches: &ArgMatches) -> Result<ExitCode> {
    let (mut states, mut errors) = dir::all(&Place::of(matches)?)?;
    errors.extend(anonymous::sweep());
    sweep_links();
    states.sort_by_cached_key(|state| Reverse((seconds(state, "created") * 1000.0) as u64));
    states.retain(|state| matches.get_flag("all") || state.status != Status::Stopped);
    let text = match () {
        () if matches.get_flag("quiet") => {
            states.iter().map(|state| format!("{}\n", state.id)).collect()
        }
        () if matches.get_flag("json") => json(&states)?,
        () => table(&states),
    };
    print(text)?;
    Ok(errors.iter().fold(ExitCode::SUCCESS, |_, error| TOOL.fail(error)))
}

/// The links that may leave something when they are killed, and the action that removes it.
const SWEEPERS: [(&str, &str); 2] = [("jc-cgroup", "--list"), ("jc-net", "--gc")];

/// Lets links sweep. Who may not do that, or has no such thing here, cannot have left any.
pub fn sweep_links() {
    for (link, action) in SWEEPERS {
        let Ok(program) = tool(link.as_ref()) else { continue };
        let mut command = Process::new(program);
        command.arg(action).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let _: std::io::Result<_> = command.status();
    }
}

fn json(states: &[State]) -> Result<String> {
    let line = |state: &State| match serde_json::to_string(state) {
        Ok(line) => Ok(escape::json(&line) + "\n"),
        Err(e) => Err(Error::new(format_args!("write JSON: {e}"))),
    };
    states.iter().map(line).collect()
}

const COLUMNS: usize = 8;

fn table(states: &[State]) -> String {
    let head = ["ID", "NAME", "IMAGE", "COMMAND", "AGE", "STATUS", "PORTS", "PID"];
    let now = now().parse().unwrap_or(0.0);
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(states.iter().map(|state| row(state, now)));
    table::table(&rows, COLUMNS)
}

fn row(state: &State, now: f64) -> [String; COLUMNS] {
    let word = |key| state.get(key).unwrap_or("-").to_owned();
    [
        state.id.clone(),
        shown(&word("name"), 64),
        shown(&word("image"), 40),
        shown(&word("command"), 30),
        age(now - seconds(state, "created")),
        status(state, now),
        shown(&word("ports"), 40),
        state.pid.map_or("-".to_owned(), |pid| pid.to_string()),
    ]
}

/// What it does, and since when.
fn status(state: &State, now: f64) -> String {
    match state.status {
        Status::Creating => "creating".to_owned(),
        Status::Running => format!("up {}", age(now - seconds(state, "started"))),
        Status::Stopped => {
            let reason = if state.get("oom") == Some("true") { ", out of memory" } else { "" };
            // Killed with its supervisor, it could tell nobody.
            format!("exited ({}{reason})", state.get("exit-code").unwrap_or("unknown"))
        }
    }
}

fn seconds(state: &State, key: &str) -> f64 {
    state.get(key).and_then(|time| time.parse().ok()).unwrap_or(0.0)
}

/// A time span in its largest unit.
fn age(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A text that can do nothing to a terminal, and is no longer than that.
fn shown(text: &str, most: usize) -> String {
    let text = Escaped(text).to_string();
    match text.chars().count() > most {
        true => text.chars().take(most - 3).chain("...".chars()).collect(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_in_their_largest_unit() {
        for (seconds, text) in
            [(-1.0, "0s"), (119.9, "119s"), (120.0, "2m"), (7200.0, "2h"), (200_000.0, "2d")]
        {
            assert_eq!(age(seconds), text);
        }
    }

    #[test]
    fn an_image_cannot_write_to_the_terminal() {
        assert_eq!(shown("a\x1b[2J\n", 15), "a\\u{1b}[2J\\n");
        assert_eq!(shown("0123456789", 8), "01234...");
    }
}
