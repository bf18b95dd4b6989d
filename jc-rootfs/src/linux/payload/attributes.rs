//! Attributes of a process that execve(2) keeps: scheduling, memory policy, personality, umask and labels.

use std::fs;
use std::str::FromStr;

use jc_unshare::list::numbers;
use jc_unshare::on_demand::Group;
use jc_unshare::{Absent, Context, Error, Result, procfs};
use rustix::fs::Mode;
use rustix::process::umask;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::Deserialize;

use crate::linux::args::values::octal;
use crate::linux::sys::{self, SchedulingAttributes};

/// The options of the command line.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub struct AttributeArgs {
    /// Set the file mode creation mask of PROG, in octal
    #[arg(long, value_name = "MODE", value_parser = mask)]
    umask: Option<u32>,
    /// Set the score of PROG for the out-of-memory killer: -1000 to 1000
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i16).range(-1000..=1000))]
    oom_score_adj: Option<i16>,
    /// Set the execution domain of PROG
    #[arg(long, value_name = "DOMAIN", value_enum)]
    personality: Option<Personality>,
    /// Set the scheduling of PROG: process.scheduler of the OCI, in JSON
    #[arg(long, value_name = "JSON")]
    scheduler: Option<Scheduler>,
    /// Set the I/O priority of PROG: rt:N, be:N or idle:N
    #[arg(long, value_name = "CLASS:N", value_parser = io_priority)]
    io_priority: Option<i32>,
    /// Let PROG run on these CPUs: a list such as 0-2,5
    #[arg(long, value_name = "LIST", value_parser = cpus)]
    cpu_affinity: Option<CpuSet>,
    /// Set the memory policy of PROG: linux.memoryPolicy of the OCI, in JSON
    #[arg(long, value_name = "JSON")]
    memory_policy: Option<MemoryPolicy>,
    /// Confine PROG by a profile of AppArmor
    #[arg(long, value_name = "PROFILE", conflicts_with = "selinux")]
    apparmor: Option<String>,
    /// Run PROG with a label of SELinux
    #[arg(long, value_name = "LABEL")]
    selinux: Option<String>,
}

impl Group for AttributeArgs {
    const NAMES: &'static [(&'static str, Option<char>)] = &[
        ("umask", None),
        ("oom-score-adj", None),
        ("personality", None),
        ("scheduler", None),
        ("io-priority", None),
        ("cpu-affinity", None),
        ("memory-policy", None),
        ("apparmor", None),
        ("selinux", None),
    ];
}

fn mask(word: &str) -> std::result::Result<u32, String> {
    let mask = u32::from_str_radix(&octal(word)?, 8).unwrap_or(u32::MAX);
    if mask <= 0o777 { Ok(mask) } else { Err("not a mask up to 777".to_owned()) }
}

fn cpus(word: &str) -> std::result::Result<CpuSet, String> {
    let numbers = numbers(word).filter(|numbers| !numbers.is_empty());
    let numbers = numbers.ok_or("not a list like 0-2,5")?;
    let mut set = CpuSet::new();
    for number in numbers {
        let number = number as usize;
        if number >= CpuSet::MAX_CPU {
            return Err(format!("no CPU {number}"));
        }
        set.set(number);
    }
    Ok(set)
}

/// Parses the class and the priority of ioprio_set(2).
fn io_priority(word: &str) -> std::result::Result<i32, String> {
    let (class, number) = word.split_once(':').ok_or("not CLASS:N")?;
    let class = match class {
        "rt" => 1,
        "be" => 2,
        "idle" => 3,
        _ => return Err(format!("no class {class:?}")),
    };
    let number = number.parse::<i32>().ok().filter(|number| (0..=7).contains(number));
    Ok(class << 13 | number.ok_or("not a number from 0 to 7")?)
}

/// The execution domains of the OCI (config-linux.md, "Personality").
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum Personality {
    /// The domain of this machine
    Linux,
    /// The domain in which uname(2) shows a 32-bit machine
    Linux32,
}

/// The object `process.scheduler` (config.md, "Linux Process").
#[derive(Clone, Debug, Deserialize)]
struct Scheduler {
    policy: String,
    #[serde(default)]
    nice: i32,
    #[serde(default)]
    priority: i32,
    #[serde(default)]
    flags: Option<Vec<String>>,
    #[serde(default)]
    runtime: u64,
    #[serde(default)]
    deadline: u64,
    #[serde(default)]
    period: u64,
}

/// The policies of sched(7), by number.
const POLICIES: [(&str, u32); 7] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];

/// The flags of sched_setattr(2), in the order of their bits.
const SCHEDULER_FLAGS: [&str; 7] = [
    "SCHED_FLAG_RESET_ON_FORK",
    "SCHED_FLAG_RECLAIM",
    "SCHED_FLAG_DL_OVERRUN",
    "SCHED_FLAG_KEEP_POLICY",
    "SCHED_FLAG_KEEP_PARAMS",
    "SCHED_FLAG_UTIL_CLAMP_MIN",
    "SCHED_FLAG_UTIL_CLAMP_MAX",
];

impl FromStr for Scheduler {
    type Err = String;

    fn from_str(word: &str) -> std::result::Result<Self, String> {
        let scheduler: Self = serde_json::from_str(word).map_err(|error| error.to_string())?;
        scheduler.attributes().map(|_| scheduler)
    }
}

impl Scheduler {
    fn attributes(&self) -> std::result::Result<SchedulingAttributes, String> {
        let policy = POLICIES.into_iter().find(|(name, _)| *name == self.policy);
        let (_, policy) = policy.ok_or_else(|| format!("no policy {:?}", self.policy))?;
        let mut flags = 0;
        for name in self.flags.iter().flatten() {
            let bit = SCHEDULER_FLAGS.iter().position(|known| known == name);
            flags |= 1 << bit.ok_or_else(|| format!("no flag {name:?}"))?;
        }
        let priority =
            u32::try_from(self.priority).map_err(|_| "a negative priority".to_owned())?;
        let (nice, runtime, deadline, period) =
            (self.nice, self.runtime, self.deadline, self.period);
        Ok(SchedulingAttributes { policy, flags, nice, priority, runtime, deadline, period })
    }

    /// Whether a child of this process would have other attributes.
    fn ends_with_fork(&self) -> bool {
        self.policy == "SCHED_DEADLINE"
            || self.flags.iter().flatten().any(|flag| flag == SCHEDULER_FLAGS[0])
    }
}

/// The object `linux.memoryPolicy` (config-linux.md, "Memory policy").
#[derive(Clone, Debug, Deserialize)]
struct MemoryPolicy {
    mode: String,
    #[serde(default)]
    nodes: String,
    #[serde(default)]
    flags: Option<Vec<String>>,
}

/// The modes of set_mempolicy(2), by number.
const MODES: [&str; 7] = [
    "MPOL_DEFAULT",
    "MPOL_PREFERRED",
    "MPOL_BIND",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];
const MODE_FLAGS: [(&str, i32); 3] = [
    ("MPOL_F_NUMA_BALANCING", 1 << 13),
    ("MPOL_F_RELATIVE_NODES", 1 << 14),
    ("MPOL_F_STATIC_NODES", 1 << 15),
];

impl FromStr for MemoryPolicy {
    type Err = String;

    fn from_str(word: &str) -> std::result::Result<Self, String> {
        let policy: Self = serde_json::from_str(word).map_err(|error| error.to_string())?;
        policy.arguments().map(|_| policy)
    }
}

impl MemoryPolicy {
    /// The mode with its flags, and the mask of nodes.
    fn arguments(&self) -> std::result::Result<(i32, Vec<u64>), String> {
        let mode = MODES.iter().position(|name| *name == self.mode);
        let mut mode = mode.ok_or_else(|| format!("no mode {:?}", self.mode))? as i32;
        for name in self.flags.iter().flatten() {
            let flag = MODE_FLAGS.into_iter().find(|(known, _)| known == name);
            mode |= flag.ok_or_else(|| format!("no flag {name:?}"))?.1;
        }
        let nodes = numbers(&self.nodes).ok_or("nodes: not a list like 0-2,5")?;
        let mut mask = Vec::new();
        for node in nodes {
            let word = (node / u64::BITS) as usize;
            mask.resize(mask.len().max(word + 1), 0);
            mask[word] |= 1u64 << (node % u64::BITS);
        }
        Ok((mode, mask))
    }
}

impl AttributeArgs {
    /// Sets the attribute that needs the host's procfs. EACCES: this process lacks CAP_SYS_RESOURCE for a lower score.
    /// A label of a module that the kernel lacks is an error.
    pub fn apply_on_host(&self) -> Result<()> {
        if self.apparmor.is_some() {
            let path = "/sys/module/apparmor/parameters/enabled";
            let enabled = fs::read_to_string(path).on("read", path).absent()?;
            require("AppArmor", enabled.is_some_and(|text| text.trim() == "Y"))?;
        }
        if self.selinux.is_some() {
            let path = "/proc/filesystems";
            let types = fs::read_to_string(path).on("read", path)?;
            require("SELinux", types.lines().any(|line| line.ends_with("\tselinuxfs")))?;
        }
        let score = self.oom_score_adj.map(|score| score.to_string());
        score.map_or(Ok(()), |score| procfs::write("self/oom_score_adj", &score))
    }

    /// Sets the attributes that need privileges, before this process loses them. If `forks`, a child of this process
    /// executes the program.
    pub fn apply(&self, forks: bool) -> Result<()> {
        if let Some(set) = &self.cpu_affinity {
            sched_setaffinity(None, set).op("sched_setaffinity")?;
        }
        if let Some(scheduler) = &self.scheduler {
            if forks && scheduler.ends_with_fork() {
                return Err(Error::usage("--scheduler: a child does not inherit this policy"));
            }
            let attributes = scheduler.attributes().map_err(Error::usage)?;
            sys::set_scheduling(&attributes).on("sched_setattr", &scheduler.policy)?;
        }
        if let Some(priority) = self.io_priority {
            sys::set_io_priority(priority).op("ioprio_set")?;
        }
        if let Some(policy) = &self.memory_policy {
            let (mode, nodes) = policy.arguments().map_err(Error::usage)?;
            sys::set_memory_policy(mode, &nodes).on("set_mempolicy", &policy.mode)?;
        }
        if let Some(personality) = self.personality {
            /// PER_LINUX32 of personality(2).
            const LINUX32: u64 = 8;
            let domain = if personality == Personality::Linux32 { LINUX32 } else { 0 };
            sys::set_personality(domain).op("personality")?;
        }
        if let Some(mask) = self.umask {
            umask(Mode::from_raw_mode(mask));
        }
        Ok(())
    }

    /// Sets the label for the program that this process executes next, by the procfs of the root.
    pub fn apply_labels(&self) -> Result<()> {
        if let Some(profile) = &self.apparmor {
            return procfs::write("self/attr/apparmor/exec", &format!("exec {profile}"));
        }
        if let Some(label) = &self.selinux {
            return procfs::write("self/attr/exec", label);
        }
        Ok(())
    }
}

fn require(module: &str, is_there: bool) -> Result<()> {
    if is_there {
        Ok(())
    } else {
        Err(Error::new(format_args!("this kernel does not use {module}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_all_options_of_the_group() {
        jc_unshare::on_demand::assert_names::<AttributeArgs>();
    }

    #[test]
    fn values_have_the_forms_of_the_system_calls() {
        assert_eq!((mask("0027"), mask("777")), (Ok(0o27), Ok(0o777)));
        assert_eq!(io_priority("be:3"), Ok(2 << 13 | 3));
        for word in ["1000", "8", "-1", ""] {
            assert!(mask(word).is_err(), "{word}");
        }
        for word in ["be", "be:8", "be:-1", "no:1"] {
            assert!(io_priority(word).is_err(), "{word}");
        }
        assert!(cpus("0-1,3").unwrap().is_set(3) && cpus("").is_err() && cpus("0-9999").is_err());
        let scheduler: Scheduler =
            r#"{"policy":"SCHED_FIFO","priority":5,"flags":["SCHED_FLAG_RESET_ON_FORK"]}"#
                .parse()
                .unwrap();
        let attributes = scheduler.attributes().unwrap();
        assert_eq!((attributes.policy, attributes.priority, attributes.flags), (1, 5, 1));
        assert!(scheduler.ends_with_fork());
        for word in ["{}", r#"{"policy":"SCHED_X"}"#, r#"{"policy":"SCHED_RR","flags":["X"]}"#] {
            assert!(word.parse::<Scheduler>().is_err(), "{word}");
        }
        let policy: MemoryPolicy = r#"{"mode":"MPOL_BIND","nodes":"0,64"}"#.parse().unwrap();
        assert_eq!(policy.arguments(), Ok((2, vec![1, 1])));
        assert!(r#"{"mode":"MPOL_X"}"#.parse::<MemoryPolicy>().is_err());
    }
}
