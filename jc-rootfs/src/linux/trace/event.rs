//! The events of a report, as objects of JSON.

use jc_unshare::escape;
use serde::Serialize;
use serde_json::{Value, json};

use super::super::seccomp::Abi;
use super::calls::{abi_name, find_meaning};

/// The uses of a path, a bit each.
pub const USES: [&str; 15] = [
    "access", "bind", "change", "connect", "create", "enter", "execute", "link", "list", "mount",
    "open", "remove", "rename", "stat", "watch",
];

/// The flags of open(2) that a report has, a bit each.
pub const FLAGS: [&str; 9] =
    ["append", "create", "directory", "exclusive", "nofollow", "path", "read", "truncate", "write"];

/// The bit of a name in a list.
pub fn bit(names: &[&str], name: &str) -> u16 {
    names.iter().position(|known| *known == name).map_or(0, |index| 1 << index)
}

fn names(list: &[&'static str], bits: u16) -> Value {
    list.iter()
        .enumerate()
        .filter(|(index, _)| bits >> index & 1 == 1)
        .map(|(_, name)| *name)
        .collect()
}

/// An address of connect(2), bind(2) or sendto(2).
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Address {
    /// The name of the event, `connect` or `bind`.
    pub event: &'static str,
    pub family: String,
    pub address: String,
    pub port: Option<u16>,
    /// `stream`, `dgram`, another type by number, or `None` if it is not known.
    #[serde(rename = "type")]
    pub kind: Option<String>,
}

/// A program with its arguments.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Program {
    pub path: Vec<u8>,
    pub arguments: Vec<Vec<u8>>,
    /// Whether the arguments are all.
    pub is_whole: bool,
}

/// A line of a report.
pub fn line(event: &Value) -> String {
    format!("{}\n", escape::json(&event.to_string()))
}

/// Puts a text that may be no UTF-8 into an event: the exact bytes then follow in hexadecimal.
pub fn put(event: &mut Value, key: &str, text: &[u8]) {
    event[key] = String::from_utf8_lossy(text).into();
    if std::str::from_utf8(text).is_err() {
        event[format!("{key}-hex")] = hex(text).into();
    }
}

/// Puts the arguments of a program into an event.
pub fn put_arguments(event: &mut Value, arguments: &[Vec<u8>]) {
    event["argv"] = arguments.iter().map(|word| String::from_utf8_lossy(word)).collect();
    if arguments.iter().any(|word| std::str::from_utf8(word).is_err()) {
        event["argv-hex"] = arguments.iter().map(|word| hex(word)).collect();
    }
}

fn hex(text: &[u8]) -> String {
    text.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A system call by its ABI and number, with its value.
pub type CallKey = (Option<Abi>, u32, Option<u64>);

/// The event of a call.
pub fn call_event((abi, number, value): &CallKey) -> Value {
    let meaning = abi.and_then(|abi| find_meaning(abi, *number));
    let name = meaning.map_or_else(|| format!("#{number}"), |meaning| meaning.name.to_owned());
    let mut event = json!({ "event": "call", "name": name, "abi": abi.map(abi_name) });
    if let Some(value) = value {
        event["value"] = json!(value);
    }
    event
}

/// The event of a path.
pub fn file_event(path: &[u8], uses: u16, flags: u16) -> Value {
    let mut event = json!({ "event": "file", "uses": names(&USES, uses) });
    put(&mut event, "path", path);
    if flags != 0 {
        event["flags"] = names(&FLAGS, flags);
    }
    event
}

/// The event of a program.
pub fn program_event(program: &Program) -> Value {
    let mut event = json!({ "event": "program" });
    put(&mut event, "path", &program.path);
    put_arguments(&mut event, &program.arguments);
    if !program.is_whole {
        event["truncated"] = true.into();
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_kept() {
        let mut event = json!({});
        put(&mut event, "path", b"/\xFF");
        put_arguments(&mut event, &[b"a".to_vec(), b"\xFF".to_vec()]);
        assert_eq!(
            (&event["path-hex"], &event["argv-hex"]),
            (&json!("2fff"), &json!(["61", "ff"]))
        );
    }
}
