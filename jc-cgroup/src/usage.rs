//! What a group has used, as one JSON object. A figure that the kernel does not count is null.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::hierarchy::{Hierarchy, Version};

/// The files that say what a group uses, open: to find each takes longer than to read it.
pub struct Meter {
    files: Vec<(&'static str, File)>,
}

/// Those of both versions.
const FILES: [&str; 20] = [
    "cpu.stat",
    "cpuacct.usage_user",
    "cpuacct.usage_sys",
    "memory.events",
    "memory.oom_control",
    "memory.current",
    "memory.usage_in_bytes",
    "memory.peak",
    "memory.max_usage_in_bytes",
    "memory.swap.peak",
    "memory.max",
    "memory.limit_in_bytes",
    "pids.current",
    "pids.peak",
    "io.stat",
    "blkio.throttle.io_service_bytes",
    "blkio.throttle.io_serviced",
    "cpu.pressure",
    "memory.pressure",
    "io.pressure",
];

impl Meter {
    /// That of a group with these directories, each in its hierarchy.
    pub fn open<'a>(group: impl Iterator<Item = (&'a Hierarchy, &'a Path)>) -> Self {
        let mut files = Vec::new();
        for (hierarchy, path) in group {
            for name in FILES.into_iter().filter(|name| has(hierarchy, name)) {
                files.extend(File::open(path.join(name)).map(|file| (name, file)));
            }
        }
        Self { files }
    }

    /// Everything, by the names that `jc-cgroup(1)` gives them.
    pub fn read(&self) -> Map<String, Value> {
        let events = self.memory_events();
        let cpu = self.keyed("cpu.stat");
        let v1_ns = |file: &str| self.number(file).map(|ns| ns / 1000);
        let mut usage = Map::new();
        let mut put = |name: &str, value: Value| usage.insert(name.to_owned(), value);
        put("cpu_user_usec", json!(cpu.get("user_usec").copied().or(v1_ns("cpuacct.usage_user"))));
        put(
            "cpu_system_usec",
            json!(cpu.get("system_usec").copied().or(v1_ns("cpuacct.usage_sys"))),
        );
        put("throttled_periods", json!(cpu.get("nr_throttled")));
        let throttled = cpu.get("throttled_usec").copied();
        put("throttled_usec", json!(throttled.or(cpu.get("throttled_time").map(|ns| ns / 1000))));
        put("memory_bytes", json!(self.either("memory.current", "memory.usage_in_bytes")));
        put("memory_peak_bytes", json!(self.memory_peak()));
        put("swap_peak_bytes", json!(self.swap_peak()));
        put("oom_kills", json!(self.oom_kills_of(&events)));
        put("memory_events", if events.is_empty() { Value::Null } else { json!(events) });
        put("pids", json!(self.number("pids.current")));
        put("pids_peak", json!(self.number("pids.peak")));
        put("io", self.io());
        put("pressure_usec", self.pressure());
        usage
    }

    /// How many processes of the group the kernel killed for want of memory.
    pub fn oom_kills(&self) -> Option<u64> {
        self.oom_kills_of(&self.memory_events())
    }

    fn oom_kills_of(&self, events: &BTreeMap<String, u64>) -> Option<u64> {
        let kills = |counts: &BTreeMap<String, u64>| counts.get("oom_kill").copied();
        kills(events).or_else(|| kills(&self.keyed("memory.oom_control")))
    }

    fn memory_events(&self) -> BTreeMap<String, u64> {
        self.keyed("memory.events")
    }

    /// The most memory that was used at once, in bytes.
    pub fn memory_peak(&self) -> Option<u64> {
        self.either("memory.peak", "memory.max_usage_in_bytes")
    }

    /// The limit of memory, in bytes, if there is one.
    pub fn memory_limit(&self) -> Option<u64> {
        self.either("memory.max", "memory.limit_in_bytes")
    }

    fn swap_peak(&self) -> Option<u64> {
        // Version 1 counts memory and swap together, and has no peak of swap alone.
        self.number("memory.swap.peak")
    }

    fn either(&self, v2: &str, v1: &str) -> Option<u64> {
        self.number(v2).or_else(|| self.number(v1))
    }

    /// What the group's directories have in files of this name.
    fn texts<'a>(&'a self, name: &'a str) -> impl Iterator<Item = String> + 'a {
        let named = self.files.iter().filter(move |(known, _)| *known == name);
        named.filter_map(|(_, file)| from_start(file).ok())
    }

    fn text(&self, file: &str) -> Option<String> {
        self.texts(file).next()
    }

    fn number(&self, file: &str) -> Option<u64> {
        self.text(file)?.trim().parse().ok()
    }

    /// A file of lines `KEY NUMBER`, from all hierarchies that have one of this name.
    fn keyed(&self, file: &str) -> BTreeMap<String, u64> {
        self.texts(file).flat_map(|text| keyed(&text)).collect()
    }

    fn io(&self) -> Value {
        if let Some(text) = self.text("io.stat") {
            return json!(io_stat(&text));
        }
        let bytes = self.text("blkio.throttle.io_service_bytes");
        let operations = self.text("blkio.throttle.io_serviced");
        match (bytes, operations) {
            (Some(bytes), Some(operations)) => json!(blkio(&bytes, &operations)),
            _ => Value::Null,
        }
    }

    fn pressure(&self) -> Value {
        let mut pressure = Map::new();
        for resource in ["cpu", "memory", "io"] {
            if let Some(text) = self.text(&format!("{resource}.pressure")) {
                pressure.insert(resource.to_owned(), json!(totals(&text)));
            }
        }
        if pressure.is_empty() { Value::Null } else { Value::Object(pressure) }
    }
}

/// Reads a file that may have been read before.
fn from_start(file: &File) -> io::Result<String> {
    let (mut text, mut end) = (vec![0; 4096], 0);
    loop {
        match file.read_at(&mut text[end..], end as u64)? {
            0 => break,
            length => end += length,
        }
        if end == text.len() {
            text.resize(2 * end, 0);
        }
    }
    text.truncate(end);
    String::from_utf8(text).map_err(io::Error::other)
}

/// Whether groups of the hierarchy may have the file: one need not look for the others. In version 2
/// some files are there without their controller.
fn has(hierarchy: &Hierarchy, file: &str) -> bool {
    let is_v1 = hierarchy.version == Version::V1;
    let controller = file.split_once('.').map_or(file, |(controller, _)| controller);
    if is_v1 && !hierarchy.controllers.iter().any(|name| name == controller) {
        return false;
    }
    let is_old = file.starts_with("cpuacct.")
        || file.starts_with("blkio.")
        || ["_in_bytes", "oom_control"].iter().any(|end| file.ends_with(end));
    let is_both = file.starts_with("pids.") || file == "cpu.stat";
    is_both || is_old == is_v1
}

fn keyed(text: &str) -> BTreeMap<String, u64> {
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.filter_map(|(key, number)| Some((key.to_owned(), number.trim().parse().ok()?))).collect()
}

type ByDevice = BTreeMap<String, BTreeMap<String, u64>>;

/// The lines of io.stat: `MAJOR:MINOR rbytes=N wbytes=N rios=N wios=N ...`.
fn io_stat(text: &str) -> ByDevice {
    let mut devices = ByDevice::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let Some(device) = words.next() else { continue };
        let counts = words.filter_map(|word| word.split_once('='));
        let counts =
            counts.filter_map(|(name, count)| Some((name.to_owned(), count.parse().ok()?)));
        devices.entry(device.to_owned()).or_default().extend(counts);
    }
    devices
}

/// The lines of version 1, `MAJOR:MINOR Read N`, under the names of io.stat.
fn blkio(bytes: &str, operations: &str) -> ByDevice {
    let mut devices = ByDevice::new();
    for (text, names) in [(bytes, ["rbytes", "wbytes"]), (operations, ["rios", "wios"])] {
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let name = match words[..] {
                [_, "Read", _] => names[0],
                [_, "Write", _] => names[1],
                _ => continue,
            };
            let count = words[2].parse().unwrap_or_default();
            devices.entry(words[0].to_owned()).or_default().insert(name.to_owned(), count);
        }
    }
    devices
}

/// The totals of a pressure file (psi.rst), in microseconds.
fn totals(text: &str) -> BTreeMap<String, u64> {
    let total = |line: &str| {
        let (kind, rest) = line.split_once(' ')?;
        Some((kind.to_owned(), rest.rsplit_once("total=")?.1.parse().ok()?))
    };
    text.lines().filter_map(total).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_version_2() {
        assert_eq!(keyed("low 0\noom_kill 3\n")["oom_kill"], 3);
        let stat = io_stat("8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n254:0\n");
        assert_eq!((stat["8:0"]["rbytes"], stat["8:0"]["wios"]), (1, 4));
        let psi =
            totals("some avg10=0.00 avg60=0.00 avg300=0.00 total=12\nfull avg10=0.00 total=5\n");
        assert_eq!((psi["some"], psi["full"]), (12, 5));
    }

    #[test]
    fn each_version_has_its_files() {
        for (file, v1, v2) in [
            ("memory.peak", false, true),
            ("memory.max_usage_in_bytes", true, false),
            ("memory.oom_control", true, false),
            ("io.stat", false, true),
            ("blkio.throttle.io_serviced", true, false),
            ("cpu.pressure", false, true),
            ("cpu.stat", true, true),
            ("cpuacct.usage_user", true, false),
            ("pids.peak", true, true),
        ] {
            let has = |version, controllers: &[&str]| {
                let controllers = controllers.iter().map(|name| (*name).to_owned()).collect();
                let (mount, own) = ("/c".into(), "/c".into());
                has(&Hierarchy { version, mount, own, controllers }, file)
            };
            let all = ["memory", "blkio", "io", "cpu", "cpuacct", "pids"];
            assert_eq!([has(Version::V1, &all), has(Version::V2, &all)], [v1, v2], "{file}");
            assert_eq!([has(Version::V1, &[]), has(Version::V2, &[])], [false, v2], "{file}");
        }
    }

    #[test]
    fn files_of_version_1_read_the_same() {
        let bytes = "8:0 Read 1\n8:0 Write 2\n8:0 Total 3\nTotal 3\n";
        let operations = "8:0 Read 3\n8:0 Write 4\n";
        let stat = io_stat("8:0 rbytes=1 wbytes=2 rios=3 wios=4");
        assert_eq!(blkio(bytes, operations), stat);
    }
}
