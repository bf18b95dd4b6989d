//! `--resources`: limits in the form of the OCI (runtime-spec config-linux.md, "Control groups"). Values of version 1
//! become those of version 2 as in other container runtimes.

use std::fs::File;
use std::io;

use jc_unshare::{Error, Result, read_at_most};
use serde_json::Value;

use super::devices;
use super::hierarchy::{Hierarchy, Version, find, with};
use super::memory::{Memory, only_version_1};
use super::setting::{ReadBack, Setting};

/// The size limit of a file, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// The object `linux.resources` of a bundle's config.json.
#[derive(Clone, Debug, PartialEq)]
pub struct Resources(Value);

/// Settings with the hierarchies that have their controllers.
type Settings<'a> = Vec<(&'a Hierarchy, Setting)>;

impl Resources {
    /// Parses a word: the object itself, which begins with a brace, or a file, or `-` for standard input.
    pub fn parse(word: &str) -> std::result::Result<Self, String> {
        let text = match word {
            _ if word.starts_with('{') => Ok(word.as_bytes().to_vec()),
            "-" => read_at_most(io::stdin(), MAX_FILE, "standard input"),
            _ => {
                let file = File::open(word).map_err(|error| format!("{word}: {error}"))?;
                read_at_most(file, MAX_FILE, word)
            }
        };
        let text = text.map_err(|error| error.to_string())?;
        match serde_json::from_slice(&text) {
            Ok(Value::Object(object)) => Ok(Self(Value::Object(object))),
            Ok(_) => Err("not an object".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The files to write. A limit that the hierarchies of this machine cannot hold is an error.
    pub fn settings<'a>(&self, all: &'a [Hierarchy]) -> Result<Settings<'a>> {
        let mut settings = Vec::new();
        self.add_memory(all, &mut settings)?;
        self.add_cpu(all, &mut settings)?;
        self.add_cpuset(all, &mut settings)?;
        if let Some(limit) = self.number("/pids/limit")? {
            settings
                .push((with(all, "pids")?, Setting::new("pids.max", max(limit), ReadBack::Same)));
        }
        self.add_block_io(all, &mut settings)?;
        self.add_huge_pages(all, &mut settings)?;
        self.add_network(all, &mut settings)?;
        self.add_rdma(all, &mut settings)?;
        self.add_unified(all, &mut settings)?;
        devices::add(self.list("/devices")?, all, &mut settings)?;
        Ok(settings)
    }

    /// A number. `None`: the object lacks it.
    fn number(&self, pointer: &str) -> Result<Option<i64>> {
        match self.0.pointer(pointer) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match (value.as_i64(), value.as_u64()) {
                (Some(number), _) => Ok(Some(number)),
                // The largest numbers mean no limit.
                (None, Some(_)) => Ok(Some(-1)),
                _ => Err(wrong(pointer, value)),
            },
        }
    }

    /// A number other than 0, which means that nothing is asked for.
    fn positive(&self, pointer: &str) -> Result<Option<i64>> {
        Ok(self.number(pointer)?.filter(|number| *number != 0))
    }

    fn flag(&self, pointer: &str) -> Result<Option<bool>> {
        match self.0.pointer(pointer) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value.as_bool().map(Some).ok_or_else(|| wrong(pointer, value)),
        }
    }

    fn list(&self, pointer: &str) -> Result<&[Value]> {
        match self.0.pointer(pointer) {
            None | Some(Value::Null) => Ok(&[]),
            Some(Value::Array(list)) => Ok(list),
            Some(value) => Err(wrong(pointer, value)),
        }
    }

    fn members(&self, pointer: &str) -> Result<Vec<(&String, &Value)>> {
        match self.0.pointer(pointer) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Object(object)) => Ok(object.iter().collect()),
            Some(value) => Err(wrong(pointer, value)),
        }
    }

    fn add_memory<'a>(&self, all: &'a [Hierarchy], settings: &mut Settings<'a>) -> Result<()> {
        let limits = Memory {
            limit: self.positive("/memory/limit")?,
            swap: self.positive("/memory/swap")?,
            reservation: self.positive("/memory/reservation")?,
            swappiness: self.number("/memory/swappiness")?,
            kernel: self.positive("/memory/kernel")?.filter(|limit| *limit > 0),
            kernel_tcp: self.positive("/memory/kernelTCP")?.filter(|limit| *limit > 0),
            disable_oom_killer: self.flag("/memory/disableOOMKiller")?,
            check_before_update: self.flag("/memory/checkBeforeUpdate")? == Some(true),
        };
        if !limits.is_given() {
            return Ok(());
        }
        let memory = with(all, "memory")?;
        let found = match memory.version {
            Version::V2 => limits.of_version_2()?,
            Version::V1 => limits.of_version_1(),
        };
        settings.extend(found.into_iter().map(|setting| (memory, setting)));
        Ok(())
    }

    fn add_cpu<'a>(&self, all: &'a [Hierarchy], settings: &mut Settings<'a>) -> Result<()> {
        let shares = self.positive("/cpu/shares")?;
        let (quota, period) = (self.positive("/cpu/quota")?, self.positive("/cpu/period")?);
        let burst = self.number("/cpu/burst")?;
        let idle = self.number("/cpu/idle")?;
        let real_time = [
            (self.positive("/cpu/realtimePeriod")?, "cpu.rt_period_us"),
            (self.positive("/cpu/realtimeRuntime")?, "cpu.rt_runtime_us"),
        ];
        let is_real_time = real_time.iter().any(|(value, _)| value.is_some());
        if !is_real_time && [shares, quota, period, burst, idle].iter().all(Option::is_none) {
            return Ok(());
        }
        let cpu = with(all, "cpu")?;
        let mut add = |file: &str, value: String| {
            settings.push((cpu, Setting::new(file, value, ReadBack::Same)))
        };
        let is_v2 = cpu.version == Version::V2;
        idle.into_iter().for_each(|idle| add("cpu.idle", idle.to_string()));
        // An idle group has the smallest weight, and takes no other.
        match shares.filter(|_| idle != Some(1)) {
            Some(shares) if is_v2 => add("cpu.weight", weight_of_shares(shares).to_string()),
            Some(shares) => add("cpu.shares", shares.clamp(2, 262_144).to_string()),
            None => {}
        }
        let burst_file = if is_v2 { "cpu.max.burst" } else { "cpu.cfs_burst_us" };
        if !is_v2 {
            period.into_iter().for_each(|period| add("cpu.cfs_period_us", period.to_string()));
            quota.into_iter().for_each(|quota| add("cpu.cfs_quota_us", quota.max(-1).to_string()));
            for (value, file) in real_time {
                value.into_iter().for_each(|value| add(file, value.to_string()));
            }
        } else if is_real_time {
            return Err(only_version_1("cpu realtimePeriod and realtimeRuntime"));
        }
        burst.into_iter().for_each(|burst| add(burst_file, burst.to_string()));
        if is_v2 && (quota.is_some() || period.is_some()) {
            settings.push((cpu, Setting::cpu_max(quota.map(max), period)));
        }
        Ok(())
    }

    fn add_cpuset<'a>(&self, all: &'a [Hierarchy], settings: &mut Settings<'a>) -> Result<()> {
        for (pointer, file) in [("/cpu/cpus", "cpuset.cpus"), ("/cpu/mems", "cpuset.mems")] {
            match self.0.pointer(pointer) {
                None | Some(Value::Null) => {}
                Some(Value::String(list)) if list.is_empty() => {}
                Some(Value::String(list)) => {
                    settings.push((with(all, "cpuset")?, Setting::new(file, list, ReadBack::Set)));
                }
                Some(value) => return Err(wrong(pointer, value)),
            }
        }
        Ok(())
    }

    fn add_block_io<'a>(&self, all: &'a [Hierarchy], settings: &mut Settings<'a>) -> Result<()> {
        let block = || match find(all, "io")? {
            Some(io) => Ok(io),
            None => with(all, "blkio"),
        };
        if let Some(weight) = self.positive("/blockIO/weight")? {
            let block = block()?;
            settings.push((block, io_weight(block.version, None, weight)));
        }
        if let Some(weight) = self.positive("/blockIO/leafWeight")? {
            settings.push((block()?, Setting::new("blkio.leaf_weight", weight, ReadBack::Same)));
        }
        for entry in self.list("/blockIO/weightDevice")? {
            let (device, block) = (device_of(entry)?, block()?);
            let leaf = entry.get("leafWeight").and_then(Value::as_i64).filter(|leaf| *leaf != 0);
            if let Some(leaf) = leaf {
                let line = format!("{device} {leaf}");
                let setting = Setting::new("blkio.leaf_weight_device", line, ReadBack::Line);
                settings.push((block, setting));
            }
            if let Some(weight) = entry.get("weight").and_then(Value::as_i64).filter(|w| *w != 0) {
                settings.push((block, io_weight(block.version, Some(&device), weight)));
            }
        }
        for (pointer, v1, v2) in [
            ("/blockIO/throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps"),
            ("/blockIO/throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps"),
            ("/blockIO/throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops"),
            ("/blockIO/throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops"),
        ] {
            for entry in self.list(pointer)? {
                let device = device_of(entry)?;
                let rate = entry.get("rate").and_then(Value::as_u64);
                let rate = rate.ok_or_else(|| wrong(pointer, entry))?;
                let block = block()?;
                let setting = match block.version {
                    Version::V1 => Setting::new(v1, format!("{device} {rate}"), rate_check(rate)),
                    Version::V2 => {
                        let rate = if rate == 0 { "max".to_owned() } else { rate.to_string() };
                        let check = rate_check(rate.parse().unwrap_or(0));
                        Setting::new("io.max", format!("{device} {v2}={rate}"), check)
                    }
                };
                settings.push((block, setting));
            }
        }
        Ok(())
    }

    fn add_huge_pages<'a>(&self, all: &'a [Hierarchy], settings: &mut Settings<'a>) -> Result<()> {
        for entry in self.list("/hugepageLimits")? {
            let size = entry.get("pageSize").and_then(Value::as_str);
            let size = size.filter(|size| size.bytes().all(|b| b.is_ascii_alphanumeric()));
            let limit = entry.get("limit").and_then(Value::as_u64);
            let (Some(size), Some(limit)) = (size, limit) else {
                return Err(wrong("/hugepageLimits", entry));
            };
            let pages = with(all, "hugetlb")?;
            let end = if pages.version == Version::V2 { "max" } else { "limit_in_bytes" };
            let setting = |file: String| Setting::new(&file, limit, ReadBack::Same);
            settings.push((pages, setting(format!("hugetlb.{size}.{end}"))));
            // Kernels before 5.7 do not limit reservations.
            settings.push((pages, setting(format!("hugetlb.{size}.rsvd.{end}")).if_known()));
        }
        Ok(())
    }

    fn add_network<'a>(&self, all: &'a [Hierarchy], settings: &mut Settings<'a>) -> Result<()> {
        if let Some(class) = self.number("/network/classID")? {
            let setting = Setting::new("net_cls.classid", class, ReadBack::Same);
            settings.push((with(all, "net_cls")?, setting));
        }
        for entry in self.list("/network/priorities")? {
            let name = entry.get("name").and_then(Value::as_str);
            let priority = entry.get("priority").and_then(Value::as_u64);
            let (Some(name), Some(priority)) = (name, priority) else {
                return Err(wrong("/network/priorities", entry));
            };
            let line = format!("{name} {priority}");
            let setting = Setting::new("net_prio.ifpriomap", line, ReadBack::Line);
            settings.push((with(all, "net_prio")?, setting));
        }
        Ok(())
    }

    fn add_rdma<'a>(&self, all: &'a [Hierarchy], settings: &mut Settings<'a>) -> Result<()> {
        for (device, limits) in self.members("/rdma")? {
            let mut line = device.clone();
            for (key, name) in [("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object")] {
                if let Some(limit) = limits.get(key).and_then(Value::as_u64) {
                    line.push_str(&format!(" {name}={limit}"));
                }
            }
            let setting = Setting::new("rdma.max", line, ReadBack::Line);
            settings.push((with(all, "rdma")?, setting));
        }
        Ok(())
    }

    fn add_unified<'a>(&self, all: &'a [Hierarchy], settings: &mut Settings<'a>) -> Result<()> {
        for (file, value) in self.members("/unified")? {
            let unified = all.iter().find(|hierarchy| hierarchy.version == Version::V2);
            let unified =
                unified.ok_or_else(|| Error::new("resources: unified needs cgroup v2"))?;
            let value = value.as_str().ok_or_else(|| wrong("/unified", value))?;
            if !file.contains('.') || file.contains('/') {
                return Err(Error::new(format_args!(
                    "resources: {file:?} is no file of cgroup v2"
                )));
            }
            let setting = Setting::new(file, value, ReadBack::Unchecked);
            if !setting.controller.is_empty() && !unified.has(&setting.controller)? {
                let (file, name) = (&setting.file, &setting.controller);
                let text = format_args!("resources: {file}: cgroup v2 lacks the controller {name}");
                return Err(Error::new(text));
            }
            settings.push((unified, setting));
        }
        Ok(())
    }
}

fn wrong(pointer: &str, value: &Value) -> Error {
    Error::usage(format_args!("resources: {pointer}: {value} has another form"))
}

/// `max` for a negative number.
fn max(limit: i64) -> String {
    if limit < 0 { "max".to_owned() } else { limit.to_string() }
}

/// The weight of version 2 for shares of version 1: 2, 1024 and 262144 become 1, 100 and 10000, as in runc and crun.
fn weight_of_shares(shares: i64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    let exponent = (shares.min(262_144) as f64).log2();
    let weight = 10f64.powf((exponent * exponent + 125.0 * exponent) / 612.0 - 7.0 / 34.0);
    (weight.ceil() as u64).min(10_000)
}

/// The weight of block I/O. With the scheduler BFQ both versions have the same range; else version 2 has a wider one.
fn io_weight(version: Version, device: Option<&str>, weight: i64) -> Setting {
    let line = |weight: i64| match device {
        Some(device) => format!("{device} {weight}"),
        None => weight.to_string(),
    };
    let check = || if device.is_some() { ReadBack::Line } else { ReadBack::Words };
    let end = if device.is_some() && version == Version::V1 { "_device" } else { "" };
    let (prefix, other, value) = match version {
        Version::V1 => ("blkio", format!("blkio.weight{end}"), weight),
        Version::V2 => ("io", "io.weight".to_owned(), 1 + (weight - 10) * 9999 / 990),
    };
    let bfq = Setting::new(&format!("{prefix}.bfq.weight{end}"), line(weight), check());
    bfq.or(Setting::new(&other, line(value), check()))
}

/// A rate of 0 means no limit, and has no line in the file.
fn rate_check(rate: u64) -> ReadBack {
    if rate == 0 { ReadBack::Unchecked } else { ReadBack::Line }
}

/// `MAJOR:MINOR`
fn device_of(entry: &Value) -> Result<String> {
    let number = |key: &str| entry.get(key).and_then(Value::as_u64);
    match (number("major"), number("minor")) {
        (Some(major), Some(minor)) => Ok(format!("{major}:{minor}")),
        _ => Err(wrong("/blockIO", entry)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights_that_keep_the_ends_and_the_default() {
        let weights = [0, 1, 2, 1024, 262_144, 1 << 40].map(weight_of_shares);
        assert_eq!(weights, [1, 1, 1, 100, 10_000, 10_000]);
    }

    #[test]
    fn an_object_is_a_word_or_a_file_and_nothing_else() {
        assert!(Resources::parse(r#"{"memory":{"limit":1}}"#).is_ok());
        for word in ["{", "/none", "/dev/null"] {
            assert!(Resources::parse(word).is_err(), "{word}");
        }
        for json in [
            r#"{"memory":{"limit":"1"}}"#,
            r#"{"memory":{"disableOOMKiller":1}}"#,
            r#"{"cpu":{"cpus":1}}"#,
            r#"{"devices":{}}"#,
            r#"{"unified":[]}"#,
        ] {
            let error = Resources::parse(json).unwrap().settings(&[]).unwrap_err().to_string();
            assert!(error.contains("has another form"), "{json}: {error}");
        }
        assert_eq!(Resources::parse("{}").unwrap().settings(&[]).unwrap(), []);
    }
}
