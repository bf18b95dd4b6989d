//! The tables of a run: each different event once, in bounded memory.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File as Output;
use std::io::{BufWriter, Write};
use std::time::Instant;

use jc_unshare::{Context, Result};
use serde_json::{Map, Value, json};

use super::super::seccomp::Abi;
use super::event::{
    Address, Program, address_event, call_event, describe, exit_event, file_event, line,
    program_event,
};
use super::place::{Found, Place};

/// The most bytes of all tables, with an estimate for each entry.
const MOST: usize = 64 << 20;
/// The bytes of an entry apart from its text.
const ENTRY: usize = 160;

/// A path that is used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Use {
    pub place: Place,
    /// A bit of [`use_bit`].
    pub usage: u16,
    /// The flags of an open, as bits of [`FLAGS`].
    pub flags: u16,
}

/// A file and its uses.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct File {
    uses: u16,
    flags: u16,
    /// Whether the path existed at its first lookup.
    exists: Option<bool>,
    real: Option<Vec<u8>>,
}

#[derive(Clone, Debug, Default)]
struct Runs {
    count: u64,
    exits: BTreeSet<u8>,
    is_absent: bool,
}

/// A system call with its value.
pub type CallKey = (Cow<'static, str>, Option<Abi>, Option<u64>);

/// Reasons why a report lacks something, or what else its reader should know.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Gap {
    /// The tables are full.
    Full,
    /// Files are opened by io_uring, past system calls.
    Ring,
    /// The recorder waited long for memory or a file system of the payload.
    Stalled,
    /// Memory could not be read.
    Unreadable,
    /// A lookup was left out, since too many were waiting.
    Unlooked,
    /// A seccomp listener of the payload, which the kernel refuses.
    Listener,
    /// The recorder ended before the program.
    Failed,
}

impl Gap {
    fn text(self) -> &'static str {
        match self {
            Self::Full => "tables-full",
            Self::Ring => "io_uring",
            Self::Stalled => "stalled",
            Self::Unreadable => "unreadable-memory",
            Self::Unlooked => "lookups-left-out",
            Self::Listener => "listener-refused",
            Self::Failed => "recorder-failed",
        }
    }
}

/// The lines of `--all`.
#[derive(Debug)]
pub struct Lines {
    output: BufWriter<Output>,
    started: Instant,
    /// The result of the writes.
    outcome: Result<()>,
}

impl Lines {
    /// Lines in a file, after the first one.
    pub fn new(output: Output) -> Self {
        Self { output: BufWriter::new(output), started: Instant::now(), outcome: Ok(()) }
    }

    fn write(&mut self, thread: Option<u32>, mut event: Map<String, Value>) {
        if let Some(thread) = thread {
            event.insert("thread".into(), thread.into());
        }
        event.insert("time".into(), self.started.elapsed().as_secs_f64().into());
        if self.outcome.is_ok() {
            self.outcome = self.output.write_all(line(event).as_bytes()).op("write --report");
        }
    }
}

/// All that is known of a run.
#[derive(Debug)]
pub struct Tables {
    left: usize,
    lines: Option<Lines>,
    calls: BTreeMap<String, Map<String, Value>>,
    known_calls: BTreeSet<(Cow<'static, str>, u8, Option<u64>)>,
    files: HashMap<Vec<u8>, File>,
    addresses: BTreeSet<Address>,
    programs: Vec<(Program, Runs)>,
    numbers: HashMap<Program, usize>,
    gaps: BTreeMap<Gap, u64>,
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            left: MOST,
            lines: None,
            calls: BTreeMap::new(),
            known_calls: BTreeSet::new(),
            files: HashMap::new(),
            addresses: BTreeSet::new(),
            programs: Vec::new(),
            numbers: HashMap::new(),
            gaps: BTreeMap::new(),
        }
    }
}

impl Tables {
    /// Tables that also write each event to lines.
    pub fn with_lines(lines: Option<Lines>) -> Self {
        Self { lines, ..Self::default() }
    }

    /// Writes an event of a thread, if every event is a line.
    fn write(&mut self, thread: Option<u32>, event: impl FnOnce() -> Map<String, Value>) {
        if let Some(lines) = &mut self.lines {
            lines.write(thread, event());
        }
    }

    /// Writes the last lines.
    pub fn finish_lines(&mut self, events: Vec<Map<String, Value>>) -> Result<()> {
        let Some(mut lines) = self.lines.take() else { return Ok(()) };
        events.into_iter().for_each(|event| lines.write(None, event));
        let flushed = lines.output.flush().op("write --report");
        lines.outcome.and(flushed)
    }

    /// Counts a reason why something is missing.
    pub fn miss(&mut self, gap: Gap) {
        *self.gaps.entry(gap).or_default() += 1;
    }

    /// Takes space for an entry. False: the tables are full, and the entry counts as missing.
    fn take(&mut self, text: usize) -> bool {
        match self.left.checked_sub(text + ENTRY) {
            Some(left) => {
                self.left = left;
                true
            }
            None => {
                self.miss(Gap::Full);
                false
            }
        }
    }

    /// Adds a call of a thread.
    pub fn add_call(&mut self, thread: u32, (name, abi, value): CallKey) {
        self.write(Some(thread), || call_event(&name, abi, value));
        let key = (name, abi.map_or(u8::MAX, |abi| abi as u8), value);
        if self.known_calls.contains(&key) || !self.take(key.0.len() * 2 + ENTRY) {
            return;
        }
        let sorted = format!("{} {} {:016x}", key.0, key.1, value.unwrap_or_default());
        self.calls.insert(sorted, call_event(&key.0, abi, value));
        self.known_calls.insert(key);
    }

    /// Whether a path has an entry.
    pub fn has_file(&self, path: &[u8]) -> bool {
        self.files.contains_key(path)
    }

    /// Adds a use of a path. `found` is the result of the lookup of a new path.
    pub fn add_file(&mut self, thread: Option<u32>, used: Use, found: Option<Found>) {
        self.write(thread, || {
            let mut event = file_event(&used.place.path, used.usage, used.flags);
            let exists = found.as_ref().map(|found| found.exists);
            describe(&mut event, exists, found.as_ref().and_then(|found| found.real.as_deref()));
            event
        });
        if let Some(file) = self.files.get_mut(&used.place.path) {
            file.uses |= used.usage;
            file.flags |= used.flags;
            return;
        }
        let real = found.as_ref().and_then(|found| found.real.clone());
        if self.take(used.place.path.len() + real.as_ref().map_or(0, Vec::len)) {
            let exists = found.map(|found| found.exists);
            let file = File { uses: used.usage, flags: used.flags, exists, real };
            self.files.insert(used.place.path, file);
        }
    }

    /// Completes a path whose lookup came later.
    pub fn complete(&mut self, path: &[u8], found: Found) {
        let length = found.real.as_ref().map_or(0, Vec::len);
        let is_incomplete = self.files.get(path).is_some_and(|file| file.exists.is_none());
        if is_incomplete {
            self.write(None, || {
                let mut event = file_event(path, 0, 0);
                describe(&mut event, Some(found.exists), found.real.as_deref());
                event
            });
        }
        if is_incomplete
            && self.take(length)
            && let Some(file) = self.files.get_mut(path)
        {
            (file.exists, file.real) = (Some(found.exists), found.real);
        }
    }

    /// Adds an address that a thread uses.
    pub fn add_address(&mut self, thread: u32, address: Address) {
        self.write(Some(thread), || address_event(&address));
        if !self.addresses.contains(&address) && self.take(address.address.len()) {
            self.addresses.insert(address);
        }
    }

    /// Adds an execution of a program. Returns the number of the program.
    pub fn add_program(&mut self, thread: u32, program: Program) -> Option<usize> {
        self.write(Some(thread), || program_event(&program));
        let number = match self.numbers.get(&program) {
            Some(number) => *number,
            None => {
                let text: usize = program.arguments.iter().map(|word| word.len() + 32).sum();
                if !self.take(2 * (program.path.len() + text) + ENTRY) {
                    return None;
                }
                self.programs.push((program.clone(), Runs::default()));
                self.numbers.insert(program, self.programs.len() - 1);
                self.programs.len() - 1
            }
        };
        self.programs[number].1.count += 1;
        Some(number)
    }

    /// Adds the exit code of a program.
    pub fn add_exit(&mut self, thread: u32, number: usize, code: u8) {
        self.write(Some(thread), || exit_event(code));
        if let Some((_, runs)) = self.programs.get_mut(number) {
            runs.exits.insert(code);
        }
    }

    /// Removes a program that could not be executed.
    pub fn remove_program(&mut self, number: usize) {
        if let Some((_, runs)) = self.programs.get_mut(number) {
            runs.is_absent = true;
        }
    }

    /// The events about gaps.
    pub fn gap_events(&self) -> Vec<Map<String, Value>> {
        let event = |(gap, count): (&Gap, &u64)| {
            Map::from_iter([
                ("event".to_owned(), json!("gap")),
                ("reason".to_owned(), json!(gap.text())),
                ("count".to_owned(), json!(count)),
            ])
        };
        self.gaps.iter().map(event).collect()
    }

    /// The events in their order: programs, calls, files, addresses, gaps; each sorted.
    pub fn events(&self) -> impl Iterator<Item = Map<String, Value>> {
        let mut programs: Vec<_> =
            self.programs.iter().filter(|(_, runs)| !runs.is_absent).collect();
        programs.sort_by(|one, other| one.0.cmp(&other.0));
        let programs = programs.into_iter().map(|(program, runs)| {
            let mut event = program_event(program);
            event.insert("count".into(), runs.count.into());
            event.insert("exit".into(), json!(runs.exits));
            event
        });
        let mut files: Vec<_> = self.files.iter().collect();
        files.sort_by_key(|(path, _)| *path);
        let files = files.into_iter().map(|(path, file)| {
            let mut event = file_event(path, file.uses, file.flags);
            describe(&mut event, file.exists, file.real.as_deref());
            event
        });
        let calls = self.calls.values().cloned();
        let addresses = self.addresses.iter().map(address_event);
        programs.chain(calls).chain(files).chain(addresses).chain(self.gap_events())
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::{FLAGS, MORE_USES, USES, bit, use_bit};
    use super::*;

    fn used(path: String) -> Use {
        let place = Place { path: path.into_bytes(), follows: true };
        Use { place, usage: use_bit("open"), flags: bit(&FLAGS, "read") }
    }

    #[test]
    fn each_use_and_flag_has_a_bit_of_its_own() {
        let uses = USES.iter().chain(&MORE_USES).fold(0, |bits, name| {
            assert_eq!(bits & use_bit(name), 0, "{name}");
            bits | use_bit(name)
        });
        assert_eq!(uses.count_ones() as usize, USES.len() + MORE_USES.len());
        assert_eq!(use_bit("none"), 0);
    }

    #[test]
    fn a_path_has_one_event_with_all_its_uses() {
        let mut tables = Tables::default();
        tables.add_file(None, used("/b".into()), None);
        tables.add_file(None, Use { usage: use_bit("stat"), flags: 0, ..used("/b".into()) }, None);
        tables.add_file(None, used("/a".into()), Some(Found { exists: true, real: None, mode: 0 }));
        tables.complete(b"/b", Found::default());
        tables.complete(b"/a", Found::default());
        let events: Vec<String> =
            tables.events().map(|event| Value::Object(event).to_string()).collect();
        assert_eq!(
            events,
            [
                r#"{"event":"file","exists":true,"flags":["read"],"path":"/a","uses":["open"]}"#,
                r#"{"event":"file","exists":false,"flags":["read"],"path":"/b","uses":["open","stat"]}"#,
            ]
        );
    }

    #[test]
    fn a_million_paths_take_a_bounded_space_and_the_others_are_counted() {
        let mut tables = Tables::default();
        for number in 0..1_000_000 {
            tables.add_file(None, used(format!("/directory/of/many/files/{number}")), None);
        }
        let stored: usize = tables.files.keys().map(|path| path.len() + ENTRY).sum();
        assert!(stored <= MOST && tables.files.len() > 100_000, "{stored}");
        assert_eq!(tables.gaps[&Gap::Full], 1_000_000 - tables.files.len() as u64);
        let last = tables.events().last().unwrap();
        assert_eq!(last["reason"], "tables-full");
    }
}
