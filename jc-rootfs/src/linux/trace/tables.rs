//! The tables of a run: each different event once, in bounded memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File as Output;
use std::io::{BufWriter, Write};
use std::time::Instant;

use jc_unshare::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};

use super::event::{Address, CallKey, Program, call_event, file_event, line, program_event, put};
use super::place::{Found, Place, link_of};

/// The most bytes of all tables, with an estimate for each entry.
const MOST: usize = 64 << 20;
/// The most processes whose program is known.
const MOST_PROCESSES: usize = 1 << 16;
/// The bytes of an entry apart from its text.
const ENTRY: usize = 160;

/// A use of a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Use {
    pub place: Place,
    /// A bit of [`USES`](super::event::USES).
    pub usage: u16,
    /// The flags of an open, as bits of [`FLAGS`](super::event::FLAGS).
    pub flags: u16,
    /// The result of a lookup before the use.
    pub found: Option<Found>,
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

impl File {
    fn new(used: &Use) -> Self {
        let found = used.found.as_ref();
        let (exists, real) =
            (found.map(|found| found.exists), found.and_then(|found| found.real.clone()));
        Self { uses: used.usage, flags: used.flags, exists, real }
    }

    fn event(&self, path: &[u8]) -> Value {
        let mut event = file_event(path, self.uses, self.flags);
        event["exists"] = self.exists.into();
        if let Some(real) = &self.real {
            put(&mut event, "real", real);
        }
        event
    }

    fn length(&self) -> usize {
        self.real.as_ref().map_or(0, Vec::len)
    }
}

/// The executions of a program.
#[derive(Clone, Debug, Default)]
struct Runs {
    count: u64,
    exits: BTreeSet<u8>,
}

/// Reasons why a report lacks something, or what else its reader should know.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gap {
    TablesFull,
    /// Files are opened by io_uring, past system calls.
    #[serde(rename = "io_uring")]
    Ring,
    /// The recorder waited long for memory or a file system of the payload.
    Stalled,
    UnreadableMemory,
    /// Too many lookups were waiting.
    LookupsLeftOut,
    /// A seccomp listener of the payload, which the kernel refuses.
    ListenerRefused,
    /// The recorder ended before the program.
    RecorderFailed,
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

    fn write(&mut self, thread: Option<u32>, mut event: Value) {
        if let Some(thread) = thread {
            event["thread"] = thread.into();
        }
        event["time"] = self.started.elapsed().as_secs_f64().into();
        if self.outcome.is_ok() {
            self.outcome = self.output.write_all(line(&event).as_bytes()).op("write --report");
        }
    }

    /// Writes the last lines.
    pub fn finish(mut self, events: impl Iterator<Item = Value>) -> Result<()> {
        events.for_each(|event| self.write(None, event));
        let flushed = self.output.flush().op("write --report");
        self.outcome.and(flushed)
    }
}

/// All that is known of a run.
#[derive(Debug, Default)]
pub struct Tables {
    /// The bytes of all entries.
    used: usize,
    /// The file of `--all`.
    pub lines: Option<Lines>,
    /// The first event, with the first program and its working directory.
    pub first: Option<Value>,
    calls: BTreeSet<CallKey>,
    files: HashMap<Vec<u8>, File>,
    addresses: BTreeSet<Address>,
    /// The programs, with their index in `runs`.
    programs: BTreeMap<Program, usize>,
    runs: Vec<Runs>,
    /// The programs of processes, by their index in `runs`.
    pub processes: HashMap<u32, usize>,
    gaps: BTreeMap<Gap, u64>,
}

impl Tables {
    /// Writes an event of a thread, if every event is a line.
    fn write(&mut self, thread: Option<u32>, event: impl FnOnce() -> Value) {
        if let Some(lines) = &mut self.lines {
            lines.write(thread, event());
        }
    }

    /// Counts a reason why something is missing.
    pub fn miss(&mut self, gap: Gap) {
        *self.gaps.entry(gap).or_default() += 1;
    }

    /// Takes space for an entry. False: the tables are full, and the entry counts as missing.
    fn take(&mut self, text: usize) -> bool {
        let used = self.used + text + ENTRY;
        if used > MOST {
            self.miss(Gap::TablesFull);
            return false;
        }
        self.used = used;
        true
    }

    /// Adds a call of a thread.
    pub fn add_call(&mut self, thread: u32, key: CallKey) {
        self.write(Some(thread), || call_event(&key));
        if !self.calls.contains(&key) && self.take(0) {
            self.calls.insert(key);
        }
    }

    /// Whether the lookup of a path is not needed: the path has an entry, and no line of its own.
    pub fn knows(&self, path: &[u8]) -> bool {
        self.lines.is_none() && self.files.contains_key(path)
    }

    /// Adds a use of a path. Returns whether the path is new.
    pub fn add_file(&mut self, thread: Option<u32>, used: &Use) -> bool {
        self.write(thread, || File::new(used).event(&used.place.path));
        if let Some(known) = self.files.get_mut(&used.place.path) {
            known.uses |= used.usage;
            known.flags |= used.flags;
            return false;
        }
        let file = File::new(used);
        let is_new = self.take(used.place.path.len() + file.length());
        if is_new {
            self.files.insert(used.place.path.clone(), file);
        }
        is_new
    }

    /// Completes a path whose lookup came later.
    pub fn complete(&mut self, path: &[u8], found: Found) {
        if self.files.get(path).is_none_or(|file| file.exists.is_some()) {
            return;
        }
        let file = File { exists: Some(found.exists), real: found.real, ..File::default() };
        self.write(None, || file.event(path));
        if self.take(file.length())
            && let Some(known) = self.files.get_mut(path)
        {
            (known.exists, known.real) = (file.exists, file.real);
        }
    }

    /// Adds an address that a thread uses.
    pub fn add_address(&mut self, thread: u32, address: Address) {
        self.write(Some(thread), || json!(address));
        if !self.addresses.contains(&address) && self.take(address.address.len()) {
            self.addresses.insert(address);
        }
    }

    /// Adds an execution of a program. Returns the number of the program, and whether the execution is the first.
    /// `None`: the tables are full.
    pub fn add_program(&mut self, thread: u32, program: &Program) -> Option<(usize, bool)> {
        self.write(Some(thread), || program_event(program));
        let next = self.runs.len();
        let number = self.programs.get(program).copied().unwrap_or(next);
        if number == next {
            let text: usize = program.arguments.iter().map(|word| word.len() + 32).sum();
            if !self.take(program.path.len() + text) {
                return None;
            }
            self.programs.insert(program.clone(), number);
            self.runs.push(Runs::default());
        }
        let count = &mut self.runs[number].count;
        *count += 1;
        Some((number, *count == 1))
    }

    /// Remembers the program of a process.
    pub fn add_process(&mut self, process: u32, number: usize) {
        if self.processes.len() >= MOST_PROCESSES {
            self.processes.retain(|process, _| link_of(*process, "exe").is_some());
        }
        if self.processes.len() >= MOST_PROCESSES {
            self.miss(Gap::TablesFull);
        } else {
            self.processes.insert(process, number);
        }
    }

    /// Takes back an execution that has failed.
    pub fn remove_program(&mut self, number: usize) {
        let count = &mut self.runs[number].count;
        *count = count.saturating_sub(1);
    }

    /// Adds the exit code of a program.
    pub fn add_exit(&mut self, thread: u32, number: usize, code: u8) {
        self.write(Some(thread), || json!({ "event": "exit", "code": code }));
        self.runs[number].exits.insert(code);
    }

    /// The events about gaps.
    pub fn gap_events(&self) -> impl Iterator<Item = Value> {
        self.gaps
            .iter()
            .map(|(gap, count)| json!({ "event": "gap", "reason": gap, "count": count }))
    }

    /// The events in their order: programs, calls, files, addresses, gaps; each sorted.
    pub fn events(&self) -> impl Iterator<Item = Value> {
        let programs = self.programs.iter().map(|(program, number)| (program, &self.runs[*number]));
        let programs = programs.filter(|(_, runs)| runs.count > 0).map(|(program, runs)| {
            let mut event = program_event(program);
            (event["count"], event["exit"]) = (runs.count.into(), json!(runs.exits));
            event
        });
        let files: BTreeMap<_, _> = self.files.iter().collect();
        let files = files.into_iter().map(|(path, file)| file.event(path));
        let mut calls: Vec<Value> = self.calls.iter().map(call_event).collect();
        // The order of numbers stays among calls of the same name.
        calls.sort_by(|one, other| one["name"].as_str().cmp(&other["name"].as_str()));
        let addresses = self.addresses.iter().map(|address| json!(address));
        programs.chain(calls).chain(files).chain(addresses).chain(self.gap_events())
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::{FLAGS, USES, bit};
    use super::*;

    fn used(path: &str, usage: &str, found: Option<Found>) -> Use {
        let place = Place { path: path.into(), follows: true };
        let flags = if usage == "open" { bit(&FLAGS, "read") } else { 0 };
        Use { place, usage: bit(&USES, usage), flags, found }
    }

    #[test]
    fn a_path_has_one_event_with_all_its_uses() {
        let mut tables = Tables::default();
        tables.add_file(None, &used("/b", "open", None));
        tables.add_file(None, &used("/b", "stat", None));
        let found = Found { exists: true, real: None, mode: 0 };
        tables.add_file(None, &used("/a", "open", Some(found)));
        tables.complete(b"/b", Found::default());
        tables.complete(b"/a", Found::default());
        let events: Vec<String> = tables.events().map(|event| event.to_string()).collect();
        assert_eq!(
            events,
            [
                r#"{"event":"file","exists":true,"flags":["read"],"path":"/a","uses":["open"]}"#,
                r#"{"event":"file","exists":false,"flags":["read"],"path":"/b","uses":["open","stat"]}"#,
            ]
        );
    }

    #[test]
    fn a_program_that_could_not_be_executed_is_left_out() {
        let program =
            |path: &[u8]| Program { path: path.into(), arguments: vec![], is_whole: true };
        let mut tables = Tables::default();
        assert_eq!(tables.add_program(1, &program(b"/a")), Some((0, true)));
        tables.remove_program(0);
        assert_eq!(tables.events().count(), 0);
        assert_eq!(tables.add_program(1, &program(b"/b")), Some((1, true)));
        assert_eq!(tables.add_program(1, &program(b"/a")), Some((0, true)));
        assert_eq!(tables.add_program(1, &program(b"/b")), Some((1, false)));
        tables.add_exit(1, 0, 3);
        let counts: Vec<_> =
            tables.events().map(|event| (event["count"].clone(), event["exit"].clone())).collect();
        assert_eq!(counts, [(json!(1), json!([3])), (json!(2), json!([]))]);
    }

    #[test]
    fn a_million_paths_take_a_bounded_space_and_the_others_are_counted() {
        let mut tables = Tables::default();
        for number in 0..1_000_000 {
            let path = format!("/directory/of/many/files/{number}");
            tables.add_file(None, &used(&path, "open", None));
        }
        let stored: usize = tables.files.keys().map(|path| path.len() + ENTRY).sum();
        assert!(stored <= MOST && tables.files.len() > 100_000, "{stored}");
        assert_eq!(tables.gaps[&Gap::TablesFull], 1_000_000 - tables.files.len() as u64);
        let last = tables.events().last().unwrap();
        assert_eq!(last["reason"], "tables-full");
    }
}
