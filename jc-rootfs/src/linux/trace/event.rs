//! The events of a report, as objects of JSON.

use jc_unshare::escape;
use serde_json::{Map, Value, json};

use super::super::seccomp::Abi;
use super::calls::abi_name;

/// The uses of a path, a bit each.
pub const USES: [&str; 13] = [
    "access", "bind", "change", "connect", "create", "enter", "execute", "link", "list", "mount",
    "open", "remove", "rename",
];
/// The uses behind the others.
pub const MORE_USES: [&str; 2] = ["stat", "watch"];

/// The flags of open(2) that a report has, with their bits on this machine.
pub const FLAGS: [&str; 9] =
    ["append", "create", "directory", "exclusive", "nofollow", "path", "read", "truncate", "write"];

/// The bit of a name in a list.
pub fn bit(names: &[&str], name: &str) -> u16 {
    names.iter().position(|known| *known == name).map_or(0, |index| 1 << index)
}

/// The bit of a use.
pub fn use_bit(name: &str) -> u16 {
    bit(&USES, name) | bit(&MORE_USES, name) << USES.len()
}

fn names<'a>(list: impl Iterator<Item = &'a &'static str>, bits: u16) -> Vec<&'static str> {
    list.enumerate().filter(|(index, _)| bits >> index & 1 == 1).map(|(_, name)| *name).collect()
}

/// An address of connect(2), bind(2) or sendto(2).
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Address {
    /// The name of the event, `connect` or `bind`.
    pub event: &'static str,
    pub family: String,
    pub address: String,
    pub port: Option<u16>,
    /// `stream`, `dgram`, another type by number, or `None` if it is not known.
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
pub fn line(event: Map<String, Value>) -> String {
    format!("{}\n", escape::json(&Value::Object(event).to_string()))
}

/// Puts a text that may be no UTF-8 into an event: the exact bytes then follow in hexadecimal.
pub fn put(event: &mut Map<String, Value>, key: &str, text: &[u8]) {
    event.insert(key.to_owned(), String::from_utf8_lossy(text).into());
    if std::str::from_utf8(text).is_err() {
        event.insert(format!("{key}-hex"), hex(text).into());
    }
}

fn hex(text: &[u8]) -> String {
    text.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The event of a call.
pub fn call_event(name: &str, abi: Option<Abi>, value: Option<u64>) -> Map<String, Value> {
    let mut event = Map::new();
    event.insert("event".into(), "call".into());
    event.insert("name".into(), name.into());
    event.insert("abi".into(), abi.map(abi_name).into());
    if let Some(value) = value {
        event.insert("value".into(), value.into());
    }
    event
}

/// The event of a path.
pub fn file_event(path: &[u8], uses: u16, flags: u16) -> Map<String, Value> {
    let mut event = Map::new();
    event.insert("event".into(), "file".into());
    put(&mut event, "path", path);
    event.insert("uses".into(), json!(names(USES.iter().chain(&MORE_USES), uses)));
    if flags != 0 {
        event.insert("flags".into(), json!(names(FLAGS.iter(), flags)));
    }
    event
}

/// Adds the result of a lookup to the event of a path.
pub fn describe(event: &mut Map<String, Value>, exists: Option<bool>, real: Option<&[u8]>) {
    event.insert("exists".into(), exists.into());
    if let Some(real) = real {
        put(event, "real", real);
    }
}

/// The event of an address.
pub fn address_event(address: &Address) -> Map<String, Value> {
    let mut event = Map::new();
    event.insert("event".into(), address.event.into());
    event.insert("family".into(), address.family.clone().into());
    event.insert("address".into(), address.address.clone().into());
    event.insert("port".into(), address.port.into());
    event.insert("type".into(), address.kind.clone().into());
    event
}

/// The event of exit_group(2).
pub fn exit_event(code: u8) -> Map<String, Value> {
    Map::from_iter([("event".to_owned(), json!("exit")), ("code".to_owned(), json!(code))])
}

/// The event of a program.
pub fn program_event(program: &Program) -> Map<String, Value> {
    let mut event = Map::new();
    event.insert("event".into(), "program".into());
    put(&mut event, "path", &program.path);
    let words = program.arguments.iter().map(|word| String::from_utf8_lossy(word));
    event.insert("argv".into(), words.collect());
    if program.arguments.iter().any(|word| std::str::from_utf8(word).is_err()) {
        event.insert("argv-hex".into(), program.arguments.iter().map(|word| hex(word)).collect());
    }
    if !program.is_whole {
        event.insert("truncated".into(), true.into());
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_kept() {
        let mut event = Map::new();
        put(&mut event, "path", b"/\xFF");
        assert_eq!(event["path-hex"], "2fff");
    }
}
