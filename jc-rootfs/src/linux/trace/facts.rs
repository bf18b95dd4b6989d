//! The facts of reports, as rules need them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use jc_unshare::{Context, Error, Result};
use serde_json::Value;

/// The longest line of a report, in bytes.
const LONGEST: u64 = 16 << 20;

/// A file of reports.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FileFact {
    pub uses: BTreeSet<String>,
    pub flags: BTreeSet<String>,
    /// Whether the file existed before its first use. `None`: not known.
    pub exists: Option<bool>,
    pub real: Option<Vec<u8>>,
}

impl FileFact {
    /// Whether one of the uses is that.
    pub fn is_used(&self, usage: &str) -> bool {
        self.uses.contains(usage)
    }

    /// Whether an open has that flag.
    pub fn has_flag(&self, flag: &str) -> bool {
        self.flags.contains(flag)
    }
}

/// An address of a connection or of a bound socket.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct AddressFact {
    pub is_bound: bool,
    pub family: String,
    pub address: String,
    pub port: u16,
    pub kind: Option<String>,
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
    /// Reads a report. Malformed lines, and a report of a later version, are errors.
    pub fn read(path: &Path) -> Result<Self> {
        let mut reader = BufReader::new(File::open(path).on("open", path)?);
        let mut facts = Self::default();
        let mut is_report = false;
        loop {
            let mut line = Vec::new();
            let length =
                reader.by_ref().take(LONGEST).read_until(b'\n', &mut line).on("read", path)?;
            if length == 0 {
                break;
            }
            let wrong = |why: &str| Error::new(format_args!("{}: {why}", path.display()));
            let event: Value =
                serde_json::from_slice(&line).map_err(|error| wrong(&error.to_string()))?;
            if event["event"] == "trace" {
                is_report = true;
                if event["version"] != 1 {
                    return Err(wrong("a report of another version of jc-trace"));
                }
            }
            facts.add(&event);
        }
        match is_report {
            true => Ok(facts),
            false => {
                Err(Error::new(format_args!("{}: no whole report of jc-trace", path.display())))
            }
        }
    }

    fn add(&mut self, event: &Value) {
        let number = |key: &str| event[key].as_u64();
        let word = |key: &str| event[key].as_str().map(str::to_owned);
        let port = || number("port").and_then(|port| u16::try_from(port).ok());
        match event["event"].as_str().unwrap_or_default() {
            "trace" => {
                self.lacks_calls |= event["calls"] != true;
                self.directories.extend(text(event, "cwd"));
            }
            "call" => {
                if let Some(name) = word("name") {
                    self.calls.insert((name, word("abi").unwrap_or_default(), number("value")));
                }
            }
            "file" => {
                let Some(path) = text(event, "path") else { return };
                let file = self.files.entry(path).or_default();
                file.uses.extend(words(&event["uses"]));
                file.flags.extend(words(&event["flags"]));
                file.exists = file.exists.or(event["exists"].as_bool());
                if file.real.is_none() {
                    file.real = text(event, "real");
                }
            }
            kind @ ("connect" | "bind") => {
                let (family, address) = (word("family"), word("address"));
                if let (Some(family), Some(address), Some(port)) = (family, address, port()) {
                    let is_bound = kind == "bind";
                    self.addresses.insert(AddressFact {
                        is_bound,
                        family,
                        address,
                        port,
                        kind: word("type"),
                    });
                }
            }
            "name" if event["allowed"] == true => self.names.extend(word("name").zip(port())),
            "usage" => self.usages.push(event.clone()),
            _ => {}
        }
    }

    /// Adds the facts of another report.
    pub fn merge(&mut self, other: Self) {
        self.calls.extend(other.calls);
        self.addresses.extend(other.addresses);
        self.names.extend(other.names);
        self.usages.extend(other.usages);
        self.directories.extend(other.directories);
        self.lacks_calls |= other.lacks_calls;
        for (path, fact) in other.files {
            let Some(file) = self.files.get_mut(&path) else {
                self.files.insert(path, fact);
                continue;
            };
            file.uses.extend(fact.uses);
            file.flags.extend(fact.flags);
            // A file that one run has found counts as present.
            file.exists = match (file.exists, fact.exists) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            };
            file.real = file.real.take().or(fact.real);
        }
    }
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

fn words(list: &Value) -> impl Iterator<Item = String> {
    list.as_array().into_iter().flatten().filter_map(|word| word.as_str().map(str::to_owned))
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
            let error = Facts::read(&path).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
