//! `state`, `list`: the states of containers.

use std::path::Path;

use jc_unshare::escape::{self, Escaped};
use jc_unshare::{Absent, Context, Result, print, table};
use serde_json::{Value, json};

use super::args::List;
use super::group;
use super::state::{Container, Record, Root, Status};

/// The status of a container, with a pause.
pub fn status(record: &Record) -> Result<Status> {
    Ok(match record.status()? {
        Status::Created | Status::Running if is_frozen(record)? => Status::Paused,
        status => status,
    })
}

fn is_frozen(record: &Record) -> Result<bool> {
    record.cgroup.as_ref().map_or(Ok(false), |path| group::is_frozen(path))
}

/// Prints the state of a container.
pub fn state(root: Option<&Path>, id: &str) -> Result<()> {
    let record = Root::open(root, false)?.find(id)?.read()?;
    let state = record.long_state(status(&record)?);
    // Callers of other runtimes look for lines such as `"status": "running"`. Only strings need escapes.
    let lines: String =
        format!("{state:#}").lines().map(|line| escape::json(line) + "\n").collect();
    print(lines)
}

/// The command `list`: see jc-oci(1).
pub fn list(root: Option<&Path>, options: &List) -> Result<()> {
    let root = Root::open(root, false)?;
    let mut records = Vec::new();
    let mut failure = None;
    for id in root.ids()? {
        // Another command may remove the container meanwhile.
        let read = |container: Option<Container>| container.map_or(Ok(None), |one| one.try_read());
        match root.try_find(&id).and_then(read) {
            Ok(record) => records.extend(record),
            // The others are listed first.
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    print_all(&records, options)?;
    failure.map_or(Ok(()), Err)
}

fn print_all(records: &[Record], options: &List) -> Result<()> {
    if options.quiet {
        let lines: String = records.iter().map(|record| format!("{}\n", record.id)).collect();
        return print(lines);
    }
    let mut states = Vec::new();
    for record in records {
        let mut state = record.long_state(status(record)?);
        state["owner"] = json!(owner(record.owner)?);
        states.push(state);
    }
    if options.format == "json" {
        return print(escape::json(&json!(states).to_string()) + "\n");
    }
    let keys = ["id", "pid", "status", "bundle", "created", "owner"];
    let mut rows = vec![keys.map(str::to_uppercase)];
    rows.extend(states.iter().map(|state| {
        keys.map(|key| match &state[key] {
            Value::String(text) => Escaped(text).to_string(),
            other => other.to_string(),
        })
    }));
    print(table::table(&rows, keys.len()))
}

/// The name of a user, or the number of one without a name.
fn owner(uid: u32) -> Result<String> {
    // passwd(5): the name, a password, the number.
    let path = "/etc/passwd";
    let text = std::fs::read_to_string(path).on("read", path).absent()?.unwrap_or_default();
    let name = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid.to_string()).then(|| name.to_owned())
    });
    Ok(name.unwrap_or_else(|| format!("#{uid}")))
}
