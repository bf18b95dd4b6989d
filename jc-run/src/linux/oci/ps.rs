//! `ps`: the processes of a container.

use std::process::Command;

use jc_unshare::{Error, Result, print};
use serde_json::json;

use super::args::Ps;
use super::environment::Environment;
use super::group;
use super::state::Root;

/// Prints the PIDs as JSON, or the lines of ps(1) that have them.
pub fn command(environment: &Environment, options: &Ps) -> Result<()> {
    let root = Root::open(environment.root.as_deref(), false)?;
    let record = root.find(&options.container.id)?.read()?;
    let path = record.cgroup.as_ref();
    let path = path.ok_or_else(|| Error::new("ps: the container has no cgroup"))?;
    let members = group::members(path)?;
    if options.format == "json" {
        return print(format!("{}\n", json!(members)));
    }
    let mut command = Command::new("ps");
    match options.options.as_slice() {
        [] => command.arg("-ef"),
        words => command.args(words),
    };
    let output = group::output(&mut command)?;
    let text = String::from_utf8_lossy(&output);
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let column = head.split_whitespace().position(|word| word == "PID");
    let column = column.ok_or_else(|| Error::new("ps: the output has no column PID"))?;
    let is_member = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|word| word.parse().ok());
        pid.is_some_and(|pid: u32| members.contains(&pid))
    };
    let rows = [head].into_iter().chain(lines.filter(is_member));
    print(rows.map(|line| format!("{line}\n")).collect::<String>())
}
