//! The facts of reports, as rules need them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use jc_unshare::{Context, Error, Result};
use serde_json::Value;

use super::event::{FLAGS, USES, bit};

/// The longest line of a report, in bytes.
const LONGEST: u64 = 16 << 20;

/// A file of reports.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FileFact {
    /// The uses, as bits of [`USES`].
    uses: u16,
    /// The flags of opens, as bits of [`FLAGS`].
    flags: u16,
    /// Whether the file existed before its first use. `None`: not known.
    pub exists: Option<bool>,
    pub real: Option<Vec<u8>>,
}

impl FileFact {
    /// Whether one of the uses is that.
    pub fn is_used(&self, usage: &str) -> bool {
        self.uses & bit(&USES, usage) != 0
    }

    /// Whether an open has that flag.
    pub fn has_flag(&self, flag: &str) -> bool {
        self.flags & bit(&FLAGS, flag) != 0
    }

    /// Adds the uses of another fact about the same file.
    fn add(&mut self, other: Self) {
        self.uses |= other.uses;
        self.flags |= other.flags;
        self.real = self.real.take().or(other.real);
    }
}

/// An address of a connection or of a bound socket.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct AddressFact {
    pub is_bound: bool,
    pub address: String,
    pub port: u16,
    pub kind: Option<String>,
}

impl AddressFact {
    /// Whether the socket may be one of TCP.
    pub fn is_stream(&self) -> bool {
        self.kind.as_deref().is_none_or(|kind| kind == "stream")
    }
}

/// The facts of one or more reports.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Names, ABIs and values.
    pub calls: BTreeSet<(String, String, Option<u64>)>,
    pub files: BTreeMap<Vec<u8>, FileFact>,
    pub addresses: BTreeSet<AddressFact>,
    /// Names and ports of allowed connections.
    pub names: BTreeSet<(String, u16)>,
    pub usages: Vec<Value>,
    /// The first working directories.
    pub directories: BTreeSet<Vec<u8>>,
    /// A report lacks frequent calls.
    pub lacks_calls: bool,
}

impl Facts {
    /// Adds a report. Malformed lines, and a report of a later version, are errors.
    pub fn read(&mut self, path: &Path) -> Result<()> {
        let wrong = |why: &str| Error::new(format_args!("{}: {why}", path.display()));
        let mut reader = BufReader::new(File::open(path).on("open", path)?);
        let mut report = Self::default();
        let mut is_report = false;
        loop {
            let mut line = Vec::new();
            let mut limited = reader.by_ref().take(LONGEST);
            if limited.read_until(b'\n', &mut line).on("read", path)? == 0 {
                break;
            }
            let event: Value =
                serde_json::from_slice(&line).map_err(|error| wrong(&error.to_string()))?;
            if event["event"] == "trace" {
                is_report = true;
                if event["version"] != 1 {
                    return Err(wrong("a report of another version of jc-trace"));
                }
            }
            report.add(&event);
        }
        if !is_report {
            return Err(wrong("no whole report of jc-trace"));
        }
        self.merge(report);
        Ok(())
    }

    fn add(&mut self, event: &Value) {
        let word = |key: &str| event[key].as_str().map(str::to_owned);
        let port = || event["port"].as_u64().and_then(|port| u16::try_from(port).ok());
        match event["event"].as_str().unwrap_or_default() {
            "trace" => {
                self.lacks_calls |= event["calls"] != true;
                self.directories.extend(text(event, "cwd"));
            }
            "call" => self.calls.extend(
                word("name")
                    .map(|name| (name, word("abi").unwrap_or_default(), event["value"].as_u64())),
            ),
            "file" => {
                let Some(path) = text(event, "path") else { return };
                let file = self.files.entry(path).or_default();
                file.add(FileFact {
                    uses: bits(&USES, &event["uses"]),
                    flags: bits(&FLAGS, &event["flags"]),
                    exists: None,
                    real: text(event, "real"),
                });
                // The result of the first lookup counts.
                file.exists = file.exists.or(event["exists"].as_bool());
            }
            kind @ ("connect" | "bind") => {
                if let (Some(address), Some(port)) = (word("address"), port()) {
                    let (is_bound, kind) = (kind == "bind", word("type"));
                    self.addresses.insert(AddressFact { is_bound, address, port, kind });
                }
            }
            "name" if event["allowed"] == true => self.names.extend(word("name").zip(port())),
            "usage" => self.usages.push(event.clone()),
            _ => {}
        }
    }

    fn merge(&mut self, other: Self) {
        self.calls.extend(other.calls);
        self.addresses.extend(other.addresses);
        self.names.extend(other.names);
        self.usages.extend(other.usages);
        self.directories.extend(other.directories);
        self.lacks_calls |= other.lacks_calls;
        for (path, fact) in other.files {
            match self.files.entry(path) {
                Entry::Vacant(entry) => drop(entry.insert(fact)),
                Entry::Occupied(entry) => {
                    let file = entry.into_mut();
                    // A file that one run has found counts as present.
                    file.exists = match (file.exists, fact.exists) {
                        (Some(true), _) | (_, Some(true)) => Some(true),
                        (Some(false), Some(false)) => Some(false),
                        _ => None,
                    };
                    file.add(fact);
                }
            }
        }
    }
}

/// The bits of the words of a list.
fn bits(names: &[&str], list: &Value) -> u16 {
    let words = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    words.fold(0, |bits, word| bits | bit(names, word))
}

/// A text of an event, with its exact bytes.
fn text(event: &Value, key: &str) -> Option<Vec<u8>> {
    let Some(hex) = event[format!("{key}-hex")].as_str() else {
        return event[key].as_str().map(|text| text.as_bytes().to_vec());
    };
    let digits: Option<Vec<u8>> =
        hex.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect();
    digits.map(|digits| {
        digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect()
    })
}

#[cfg(test)]
impl Facts {
    /// The facts of some lines.
    pub fn of(lines: &[&str]) -> Self {
        let mut facts = Self::default();
        for line in lines {
            facts.add(&serde_json::from_str(line).unwrap());
        }
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_one_run_has_found_counts_as_present() {
        let of = |exists: &str| {
            Facts::of(&[&format!(
                r#"{{"event":"file","path":"/a","uses":["open"],"exists":{exists}}}"#
            )])
        };
        for (one, other, merged) in [
            ("false", "true", Some(true)),
            ("null", "true", Some(true)),
            ("false", "null", None),
            ("false", "false", Some(false)),
        ] {
            let mut facts = of(one);
            facts.merge(of(other));
            assert_eq!(facts.files[&b"/a"[..]].exists, merged);
        }
    }

    #[test]
    fn exact_bytes_come_before_the_text() {
        let facts = Facts::of(&[r#"{"event":"file","path":"/?","path-hex":"2fff","uses":[]}"#]);
        assert!(facts.files.contains_key(&b"/\xFF"[..]));
    }

    #[test]
    fn another_file_is_no_report() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t");
        for (content, why) in [
            ("", "no whole report"),
            ("{\"event\":\"file\"}\n", "no whole report"),
            ("x\n", "expected value"),
            ("{\"event\":\"trace\",\"version\":2}\n", "another version"),
        ] {
            std::fs::write(&path, content).unwrap();
            let error = Facts::default().read(&path).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
