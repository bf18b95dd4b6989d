//! Options for limits, and the files of the limits in both versions (cgroup-v2.rst and cgroup-v1/*.rst of the
//! kernel's documentation).

use std::fs;

use jc_unshare::list::numbers;
use jc_unshare::on_demand::{Group, OnDemand};
use jc_unshare::{Absent, Context, Error, Result, size};

use super::device::IoMax;
use super::hierarchy::{Hierarchy, Version, with};
use super::resources::Resources;
use super::setting::{ReadBack, Setting};

/// Limits, with Docker's names and units.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
#[group(skip)]
pub struct Limits {
    /// Limit memory: bytes, or with a suffix k, m, g, t; no swap unless --memory-swap allows it
    #[arg(short = 'm', long, value_name = "SIZE", value_parser = size::parse)]
    memory: Option<u64>,
    /// Limit memory and swap together: SIZE, or -1 for any amount of swap (with -m)
    #[arg(long, value_name = "SIZE", value_parser = swap, allow_hyphen_values = true, requires = "memory")]
    memory_swap: Option<Swap>,
    /// Limit CPU time to that of N CPUs, such as 0.5
    #[arg(long, value_name = "N", value_parser = cpus)]
    cpus: Option<u64>,
    /// Limit the number of processes and threads
    #[arg(long, alias = "pids-limit", value_name = "N", value_parser = clap::value_parser!(u64).range(1..=4 << 20))]
    pids: Option<u64>,
    #[command(flatten)]
    rare: OnDemand<RareLimits>,
}

/// Limits that few command lines have.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
#[group(skip)]
struct RareLimits {
    /// Throttle the group above this much memory (cgroup v2)
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    memory_high: Option<u64>,
    /// Protect this much memory of the group from reclaim (cgroup v2)
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    memory_low: Option<u64>,
    /// When memory runs out, kill all processes of the group (cgroup v2)
    #[arg(long)]
    oom_group: bool,
    /// Set the share of CPU time under contention, 1 to 10000 [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    cpu_weight: Option<u64>,
    /// Run on these CPUs only: a list such as 0-2,5
    #[arg(long, value_name = "LIST", value_parser = list)]
    cpuset_cpus: Option<String>,
    /// Use memory of these NUMA nodes only
    #[arg(long, value_name = "LIST", value_parser = list)]
    cpuset_mems: Option<String>,
    /// Limit a disk: DEV:rbps=SIZE,wbps=SIZE,riops=N,wiops=N a second (repeatable)
    #[arg(long, value_name = "SPEC", value_parser = IoMax::parse)]
    io_max: Vec<IoMax>,
    /// Set the limits of an object like linux.resources of the OCI: JSON, or a file with it
    #[arg(long, value_name = "JSON|FILE", value_parser = Resources::parse)]
    resources: Option<Resources>,
    /// Write VALUE to a file of the group: FILE=VALUE (repeatable)
    #[arg(long, value_name = "SPEC", value_parser = set)]
    set: Vec<(String, String)>,
}

impl Group for RareLimits {
    const NAMES: &'static [(&'static str, Option<char>)] = &[
        ("memory-high", None),
        ("memory-low", None),
        ("oom-group", None),
        ("cpu-weight", None),
        ("cpuset-cpus", None),
        ("cpuset-mems", None),
        ("io-max", None),
        ("resources", None),
        ("set", None),
    ];
}

/// The limit of swap.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Swap {
    Unlimited,
    Together(u64),
}

fn swap(word: &str) -> std::result::Result<Swap, String> {
    if word == "-1" { Ok(Swap::Unlimited) } else { size::parse(word).map(Swap::Together) }
}

/// The period for quotas of CPU time in microseconds, the default of the kernel.
const PERIOD: u64 = 100_000;

/// Parses a number of CPUs into microseconds a period.
fn cpus(word: &str) -> std::result::Result<u64, String> {
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = word.split_once('.').unwrap_or((word, "0"));
    let whole = if whole.is_empty() && word.len() > 1 { "0" } else { whole };
    let error = || "not a number of CPUs from 0.01 on, with at most 5 decimals".to_owned();
    if whole.is_empty()
        || !digits(whole)
        || !digits(fraction)
        || fraction.len() > 5
        || fraction.is_empty()
    {
        return Err(error());
    }
    let fraction: u64 = format!("{fraction:0<5}").parse().map_err(|_| error())?;
    let whole: u64 = whole.parse().map_err(|_| error())?;
    let quota = whole.checked_mul(PERIOD).and_then(|whole| whole.checked_add(fraction));
    // The kernel rejects a quota below one millisecond or of many years.
    quota.filter(|quota| (1000..1 << 40).contains(quota)).ok_or_else(error)
}

fn list(word: &str) -> std::result::Result<String, String> {
    match numbers(word) {
        Some(numbers) if !numbers.is_empty() => Ok(word.to_owned()),
        _ => Err("not a list like 0-2,5".to_owned()),
    }
}

fn set(word: &str) -> std::result::Result<(String, String), String> {
    match word.split_once('=') {
        Some((file, value)) if file.contains('.') && !file.contains('/') && !value.is_empty() => {
            Ok((file.to_owned(), value.to_owned()))
        }
        _ => Err("not FILE=VALUE, such as memory.high=1g".to_owned()),
    }
}

impl Limits {
    /// Whether any limit is set.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }

    /// The files to write, each with the hierarchy of its controller. A limit that the hierarchies of this machine
    /// lack is an error.
    pub fn settings<'a>(&self, all: &'a [Hierarchy]) -> Result<Vec<(&'a Hierarchy, Setting)>> {
        let mut settings = Vec::new();
        if let Some(bytes) = self.memory {
            self.add_memory(bytes, with(all, "memory")?, &mut settings)?;
        }
        for (bytes, file) in
            [(self.rare.memory_high, "memory.high"), (self.rare.memory_low, "memory.low")]
        {
            if let Some(bytes) = bytes {
                let setting = Setting::new(file, whole_pages(bytes), ReadBack::Same);
                settings.push((unified(all, "memory", file)?, setting));
            }
        }
        if self.rare.oom_group {
            let setting = Setting::new("memory.oom.group", 1, ReadBack::Same);
            settings.push((unified(all, "memory", "--oom-group")?, setting));
        }
        self.add_cpu(all, &mut settings)?;
        if let Some(count) = self.pids {
            settings.push((with(all, "pids")?, Setting::new("pids.max", count, ReadBack::Same)));
        }
        for limit in &self.rare.io_max {
            let hierarchy = with(all, "io").or_else(|e| with(all, "blkio").map_err(|_| e))?;
            let files = limit.settings(hierarchy.version)?;
            settings.extend(files.into_iter().map(|setting| (hierarchy, setting)));
        }
        if let Some(resources) = &self.rare.resources {
            settings.extend(resources.settings(all)?);
        }
        for (file, value) in &self.rare.set {
            let setting = Setting::new(file, value, ReadBack::Words);
            settings.push((with(all, &setting.controller)?, setting));
        }
        Ok(settings)
    }

    fn add_memory<'a>(
        &self,
        bytes: u64,
        hierarchy: &'a Hierarchy,
        settings: &mut Vec<(&'a Hierarchy, Setting)>,
    ) -> Result<()> {
        let memory = whole_pages(bytes);
        if memory == 0 {
            return Err(Error::usage(format_args!("-m {bytes}: less than a page"))
                .hint("a number without a unit is one of bytes; 64M and 1.5G have units"));
        }
        let together = match self.memory_swap {
            Some(Swap::Unlimited) => None,
            Some(Swap::Together(total)) => Some(whole_pages(total)),
            None => Some(memory),
        };
        if together.is_some_and(|together| together < memory) {
            return Err(Error::usage(
                "--memory-swap is memory and swap together: not less than -m",
            ));
        }
        let (limit, swap, value) = match hierarchy.version {
            Version::V2 => ("memory.max", "memory.swap.max", together.map(|t| t - memory)),
            Version::V1 => ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", together),
        };
        settings.push((hierarchy, Setting::new(limit, memory, ReadBack::Same)));
        if let Some(value) = value {
            settings.push((hierarchy, Setting::swap(swap, value)));
        }
        Ok(())
    }

    fn add_cpu<'a>(
        &self,
        all: &'a [Hierarchy],
        settings: &mut Vec<(&'a Hierarchy, Setting)>,
    ) -> Result<()> {
        if let Some(quota) = self.cpus {
            let cpu = with(all, "cpu")?;
            let files = match cpu.version {
                Version::V2 => vec![("cpu.max", format!("{quota} {PERIOD}"))],
                Version::V1 => {
                    let period = ("cpu.cfs_period_us", PERIOD.to_string());
                    vec![period, ("cpu.cfs_quota_us", quota.to_string())]
                }
            };
            let files = files.into_iter();
            settings.extend(
                files.map(|(file, value)| (cpu, Setting::new(file, value, ReadBack::Same))),
            );
        }
        if let Some(weight) = self.rare.cpu_weight {
            let cpu = with(all, "cpu")?;
            let (file, value) = match cpu.version {
                Version::V2 => ("cpu.weight", weight),
                Version::V1 => ("cpu.shares", shares(weight)),
            };
            settings.push((cpu, Setting::new(file, value, ReadBack::Same)));
        }
        for (list, file) in
            [(&self.rare.cpuset_cpus, "cpuset.cpus"), (&self.rare.cpuset_mems, "cpuset.mems")]
        {
            if let Some(list) = list {
                check_online(list, file)?;
                settings.push((with(all, "cpuset")?, Setting::new(file, list, ReadBack::Set)));
            }
        }
        Ok(())
    }
}

/// The v2 hierarchy of a controller, for limits that version 1 lacks.
fn unified<'a>(all: &'a [Hierarchy], controller: &str, what: &str) -> Result<&'a Hierarchy> {
    let hierarchy = with(all, controller)?;
    match hierarchy.version {
        Version::V2 => Ok(hierarchy),
        Version::V1 => Err(Error::new(format_args!(
            "{what}: the {controller} controller is at {}, cgroup v1, which cannot hold it",
            hierarchy.mount.display()
        ))
        .hint("boot with systemd.unified_cgroup_hierarchy=1, or without cgroup v1")),
    }
}

/// The number of bytes that the kernel stores: rounded down to pages.
fn whole_pages(bytes: u64) -> u64 {
    bytes - bytes % rustix::param::page_size() as u64
}

/// The shares of version 1 for a weight of version 2. The weights 1, 100 and 10000 become the shares 10, 1024 and
/// 102400, so that defaults and ratios agree.
fn shares(weight: u64) -> u64 {
    (weight * 1024 / 100).max(2)
}

/// Checks that the CPUs or nodes of a list are online. cgroup v2 accepts absent CPUs, and uses others.
fn check_online(list: &str, file: &str) -> Result<()> {
    let online = match file {
        "cpuset.cpus" => "/sys/devices/system/cpu/online",
        _ => "/sys/devices/system/node/online",
    };
    // A kernel without NUMA has no list of nodes.
    let text = fs::read_to_string(online).on("read", online).absent()?;
    text.map_or(Ok(()), |online| check_subset(list, online.trim(), file))
}

/// Checks that each number of a list is one of the list `online`.
fn check_subset(list: &str, online: &str, file: &str) -> Result<()> {
    let parse = |list: &str| {
        numbers(list).ok_or_else(|| Error::new(format_args!("{file}: {list:?} is not a list")))
    };
    let (known, listed) = (parse(online)?, parse(list)?);
    match listed.iter().find(|number| !known.contains(number)) {
        Some(number) => Err(Error::new(format_args!("{file}: {number} is not online"))
            .hint(format_args!("online: {online}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_cpus_are_exact() {
        for (word, quota) in
            [("1", 100_000), ("0.5", 50_000), (".5", 50_000), ("0.01", 1000), ("2.00001", 200_001)]
        {
            assert_eq!(cpus(word), Ok(quota), "{word}");
        }
        for word in
            ["", "0", "0.001", "-1", "1.", ".", "1e1", "0.000001", "99999999999999", "1.2.3"]
        {
            assert!(cpus(word).is_err(), "{word}");
        }
    }

    #[test]
    fn the_names_are_those_of_all_rare_limits() {
        jc_unshare::on_demand::assert_names::<RareLimits>();
    }

    #[test]
    fn weights_keep_their_ratios_in_version_1() {
        assert_eq!([1, 100, 200, 10_000].map(shares), [10, 1024, 2048, 102_400]);
    }

    #[test]
    fn a_list_has_cpus_that_are_online() {
        let check = |list, online| {
            check_subset(list, online, "cpuset.cpus").map_err(|error| error.report("p"))
        };
        for (list, online) in [("0", "0-3"), ("0-1,3", "0-3"), ("2", "0,2-5"), ("0-3", "0,1,2-3")] {
            assert_eq!(check(list, online), Ok(()), "{list}");
        }
        for (list, error) in [
            ("3-4", "4 is not online\np: hint: online: 0,2-3"),
            ("0-2", "1 is not online\np: hint: online: 0,2-3"),
            ("x", "\"x\" is not a list"),
            ("3-2", "\"3-2\" is not a list"),
        ] {
            let report = format!("p: cpuset.cpus: {error}\n");
            assert_eq!(check(list, "0,2-3"), Err(report), "{list}");
        }
    }

    #[test]
    fn a_file_to_set_is_one_of_the_group() {
        assert_eq!(set("memory.high=1g"), Ok(("memory.high".into(), "1g".into())));
        for word in ["memory.high", "memory.high=", "=1", "../x.y=1", "high=1"] {
            assert!(set(word).is_err(), "{word}");
        }
    }
}
