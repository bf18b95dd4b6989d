//! The resource usage of a group, as an object of JSON. A figure that the kernel does not count is null.

use std::collections::BTreeMap;
use std::path::Path;

use jc_unshare::{Error, Result, cgroupfs};
use serde_json::{Map, Value, json};

use super::hierarchy::Version;

/// The directories of a group, whose files have its usage.
pub struct Meter<'a>(pub Vec<(Version, &'a Path)>);

impl Meter<'_> {
    /// All figures, under their names in `jc-cgroup(1)`.
    pub fn read(&self) -> Result<Map<String, Value>> {
        let events = self.keyed("memory.events")?;
        let cpu = self.keyed("cpu.stat")?;
        let v1_usec = |file: &str| Ok::<_, Error>(self.number(file)?.map(|ns| ns / 1000));
        let of_cpu = |key: &str| cpu.get(key).copied();
        let (user, system) = (v1_usec("cpuacct.usage_user")?, v1_usec("cpuacct.usage_sys")?);
        let throttled = of_cpu("throttled_time").map(|ns| ns / 1000);
        let mut usage = Map::new();
        let mut put = |name: &str, value: Value| usage.insert(name.to_owned(), value);
        put("cpu_user_usec", json!(of_cpu("user_usec").or(user)));
        put("cpu_system_usec", json!(of_cpu("system_usec").or(system)));
        put("throttled_periods", json!(of_cpu("nr_throttled")));
        put("throttled_usec", json!(of_cpu("throttled_usec").or(throttled)));
        put("memory_bytes", json!(self.either("memory.current", "memory.usage_in_bytes")?));
        put("memory_peak_bytes", json!(self.memory_peak()?));
        // Version 1 counts memory and swap together, and has no peak of swap alone.
        put("swap_peak_bytes", json!(self.number("memory.swap.peak")?));
        put("memory_events", if events.is_empty() { Value::Null } else { json!(events) });
        put("oom_kills", json!(self.oom_kills()?));
        put("pids", json!(self.number("pids.current")?));
        put("pids_peak", json!(self.number("pids.peak")?));
        put("io", self.io()?);
        put("pressure_usec", self.pressure()?);
        Ok(usage)
    }

    /// The number of processes that the kernel killed because memory ran out.
    pub fn oom_kills(&self) -> Result<Option<u64>> {
        let v1 = self.keyed("memory.oom_control")?;
        Ok(self.keyed("memory.events")?.get("oom_kill").or(v1.get("oom_kill")).copied())
    }

    /// The peak of memory, in bytes.
    pub fn memory_peak(&self) -> Result<Option<u64>> {
        self.either("memory.peak", "memory.max_usage_in_bytes")
    }

    /// The limit of memory, in bytes. `None`: there is no limit.
    pub fn memory_limit(&self) -> Result<Option<u64>> {
        // Version 1 has a number of pages for "no limit" (PAGE_COUNTER_MAX): a page is at most 64 KiB.
        const UNLIMITED: u64 = i64::MAX as u64 & !0xffff;
        let limit = self.either("memory.max", "memory.limit_in_bytes")?;
        Ok(limit.filter(|limit| *limit < UNLIMITED))
    }

    /// The limit of processes. `None`: there is no limit.
    pub fn pids_limit(&self) -> Result<Option<u64>> {
        self.number("pids.max")
    }

    fn either(&self, v2: &str, v1: &str) -> Result<Option<u64>> {
        match self.number(v2)? {
            Some(number) => Ok(Some(number)),
            None => self.number(v1),
        }
    }

    /// The contents of the files of this name.
    fn texts(&self, file: &str) -> Result<Vec<String>> {
        let mut texts = Vec::new();
        for (_, path) in self.0.iter().filter(|(version, _)| has(*version, file)) {
            texts.extend(cgroupfs::read(&path.join(file))?);
        }
        Ok(texts)
    }

    fn text(&self, file: &str) -> Result<Option<String>> {
        Ok(self.texts(file)?.into_iter().next())
    }

    /// A file of one number. `None`: the word `max`, or no file.
    fn number(&self, file: &str) -> Result<Option<u64>> {
        Ok(self.text(file)?.and_then(|text| text.trim().parse().ok()))
    }

    /// The lines `KEY NUMBER` of the files with this name, in all hierarchies.
    fn keyed(&self, file: &str) -> Result<BTreeMap<String, u64>> {
        Ok(self.texts(file)?.iter().flat_map(|text| keyed(text)).collect())
    }

    fn io(&self) -> Result<Value> {
        if let Some(text) = self.text("io.stat")? {
            return Ok(json!(io_stat(&text)));
        }
        let bytes = self.text("blkio.throttle.io_service_bytes")?;
        let operations = self.text("blkio.throttle.io_serviced")?;
        Ok(match (bytes, operations) {
            (Some(bytes), Some(operations)) => json!(blkio(&bytes, &operations)),
            _ => Value::Null,
        })
    }

    fn pressure(&self) -> Result<Value> {
        let mut pressure = Map::new();
        for resource in ["cpu", "memory", "io"] {
            if let Some(text) = self.text(&format!("{resource}.pressure"))? {
                pressure.insert(resource.to_owned(), json!(totals(&text)));
            }
        }
        Ok(if pressure.is_empty() { Value::Null } else { Value::Object(pressure) })
    }
}

/// Whether groups of this version may have the file. The check spares a lookup.
fn has(version: Version, file: &str) -> bool {
    let is_old = file.starts_with("cpuacct.")
        || file.starts_with("blkio.")
        || ["_in_bytes", "oom_control"].iter().any(|end| file.ends_with(end));
    let is_both = file.starts_with("pids.") || file == "cpu.stat";
    is_both || is_old == (version == Version::V1)
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
            assert_eq!([has(Version::V1, file), has(Version::V2, file)], [v1, v2], "{file}");
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
