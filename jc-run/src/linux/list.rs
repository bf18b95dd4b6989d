//! `jc-list`: the list of containers, after the removal of remains of killed containers.

use std::cmp::Reverse;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};
use jc_unshare::escape::{self, Escaped};
use jc_unshare::{Error, Result, Tool, print, table};

use super::state::{State, Status, now};
use super::sweep::sweep_links;
use super::{anonymous, dir, tools};

/// The name and exit codes of the program.
pub const TOOL: Tool = Tool::source("jc-list");

/// Builds the command line parser.
pub fn command() -> Command {
    let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    tools::command("jc-list", "List containers", "jc-list [options]")
        .arg(flag("all").short('a').help("List containers that have ended too"))
        .arg(flag("no-trunc").help("Print all of each column"))
        .arg(flag("quiet").short('q').help("Print only IDs"))
        .arg(
            flag("json").conflicts_with("quiet").help("Print an object of JSON for each container"),
        )
}

/// Removes remains and prints the list. A state that cannot be read is an error after the list of the others.
pub fn run(matches: &ArgMatches) -> Result<ExitCode> {
    let (mut states, mut errors) = dir::all(&tools::base_path(matches)?)?;
    errors.extend(anonymous::sweep());
    let frozen = sweep_links();
    states.sort_by_cached_key(|state| Reverse((seconds(state, "created") * 1000.0) as u64));
    for state in &mut states {
        if state.status == Status::Running && frozen.contains(&state.id) {
            state.set("paused", true);
        }
    }
    states.retain(|state| matches.get_flag("all") || state.status != Status::Stopped);
    let text = if matches.get_flag("quiet") {
        states.iter().map(|state| format!("{}\n", state.id)).collect()
    } else if matches.get_flag("json") {
        json(states)?
    } else {
        table(&states, matches.get_flag("no-trunc"))
    };
    print(text)?;
    Ok(errors.iter().fold(ExitCode::SUCCESS, |_, error| TOOL.fail(error)))
}

/// The states in JSON, without the environment of the containers.
fn json(states: Vec<State>) -> Result<String> {
    let line = |state: State| match serde_json::to_string(&State { join: None, ..state }) {
        Ok(line) => Ok(escape::json(&line) + "\n"),
        Err(e) => Err(Error::new(format_args!("write JSON: {e}"))),
    };
    states.into_iter().map(line).collect()
}

const COLUMNS: usize = 8;

fn table(states: &[State], is_whole: bool) -> String {
    let head = ["ID", "NAME", "IMAGE", "COMMAND", "AGE", "STATUS", "PORTS", "PID"];
    let now = now().parse().unwrap_or(0.0);
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(states.iter().map(|state| row(state, now, is_whole)));
    table::table(&rows, COLUMNS)
}

fn row(state: &State, now: f64, is_whole: bool) -> [String; COLUMNS] {
    let shown = |text: &str, most| shown(text, if is_whole { usize::MAX } else { most });
    let word = |key| state.get(key).unwrap_or("-").to_owned();
    [
        state.id.clone(),
        shown(&word("name"), 64),
        shown(&word("image"), 40),
        shown(&word("command"), 30),
        age(now - seconds(state, "created")),
        status(state, now),
        shown(state.get("ports").or(state.get("network")).unwrap_or("-"), 40),
        state.pid.map_or("-".to_owned(), |pid| pid.to_string()),
    ]
}

/// The status, and how long it lasts.
fn status(state: &State, now: f64) -> String {
    match state.status {
        Status::Creating => "creating".to_owned(),
        Status::Running if state.get("paused").is_some() => "paused".to_owned(),
        Status::Running => format!("up {}", age(now - seconds(state, "started"))),
        Status::Stopped => {
            let reason = if state.get("oom") == Some("true") { ", out of memory" } else { "" };
            // A supervisor that was killed has recorded no exit code.
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

/// A text of at most `most` characters, with escapes for characters that control a terminal.
fn shown(text: &str, most: usize) -> String {
    let text = Escaped(text).to_string();
    if text.chars().count() > most {
        text.chars().take(most - 3).chain("...".chars()).collect()
    } else {
        text
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
