//! The `jc-cgroup` tool: one cgroup, made, limited, joined, reported on and removed.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use jc_unshare::{Result, Tool};

#[cfg(target_os = "linux")]
mod actions;
#[cfg(target_os = "linux")]
mod cgroup;
#[cfg(target_os = "linux")]
mod delegate;
#[cfg(target_os = "linux")]
mod device;
#[cfg(target_os = "linux")]
mod group;
#[cfg(target_os = "linux")]
mod hierarchy;
#[cfg(target_os = "linux")]
mod limits;
#[cfg(target_os = "linux")]
mod place;
#[cfg(target_os = "linux")]
mod remove;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod setting;
#[cfg(target_os = "linux")]
mod sweep;
#[cfg(target_os = "linux")]
mod usage;

/// The tool's name and contract.
pub const TOOL: Tool = Tool::link("jc-cgroup");

/// Run PROG in a cgroup of its own, with limits and a report of its usage
#[cfg(target_os = "linux")]
#[derive(Debug, Parser)]
#[command(
    name = "jc-cgroup",
    version,
    group(clap::ArgGroup::new("reports").args(["report", "status_fd"]).multiple(true)),
    override_usage = "jc-cgroup [options] [--] PROG [ARG...]\n       \
                      jc-cgroup --join NAME [--] PROG [ARG...]\n       \
                      jc-cgroup --stat NAME | --update NAME LIMITS | --freeze NAME | --thaw NAME | \
                      --kill NAME | --remove NAME | --list"
)]
pub struct Args {
    #[command(flatten)]
    limits: limits::Limits,
    /// Make the group below this one, a path from the top of the hierarchy
    #[arg(long, value_name = "PATH", value_parser = place::below_top)]
    parent: Option<std::path::PathBuf>,
    /// Name the group
    #[arg(long, value_name = "NAME", value_parser = group::name)]
    name: Option<String>,
    /// Move processes of the parent group to a group beside it (cgroup v2)
    #[arg(long)]
    evacuate: bool,
    /// Let PROG make groups below its own
    #[arg(long)]
    delegate: bool,
    /// Write the resource usage to a file or descriptor, as JSON
    #[arg(long, value_name = "FILE|FD", conflicts_with = "exec", allow_hyphen_values = true)]
    report: Option<String>,
    /// Write events to this descriptor, as lines of JSON
    #[arg(long, value_name = "N")]
    status_fd: Option<u32>,
    /// Measure all resources, or only those with a limit, which is quicker (with --report or --status-fd)
    #[arg(long, value_name = "WHAT", value_enum, default_value_t, requires = "reports")]
    measure: Measure,
    /// Make PROG PID 1 of a new PID namespace, as jc-unshare -p does
    #[arg(short = 'p', conflicts_with_all = ["exec", "join"])]
    pid: bool,
    /// Join and execute, without staying to clean up
    #[arg(long)]
    exec: bool,
    /// Execute PROG in a running group
    #[arg(long, value_name = "NAME", conflicts_with_all = ["name", "report", "exec", "delegate", "Limits"])]
    join: Option<String>,
    /// Print the resource usage of a group, as JSON
    #[arg(long, value_name = "NAME", group = "action")]
    stat: Option<String>,
    /// With --stat, print a line every SECONDS until the group is gone
    #[arg(long, value_name = "SECONDS", requires = "stat", value_parser = seconds)]
    watch: Option<f64>,
    /// Change the limits of a group
    #[arg(long, value_name = "NAME", group = "action")]
    update: Option<String>,
    /// Stop all processes of a group
    #[arg(long, value_name = "NAME", group = "action")]
    freeze: Option<String>,
    /// Continue all processes of a group
    #[arg(long, value_name = "NAME", group = "action")]
    thaw: Option<String>,
    /// Kill all processes of a group
    #[arg(long, value_name = "NAME", group = "action")]
    kill: Option<String>,
    /// Remove a group that --exec has left, with its processes
    #[arg(long, value_name = "NAME", group = "action")]
    remove: Option<String>,
    /// Remove groups whose jc-cgroup is dead, and print the others: name, processes, bytes of memory
    #[arg(long, group = "action")]
    list: bool,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, value_name = "PROG")]
    program: Vec<OsString>,
}

/// What is measured.
#[cfg(target_os = "linux")]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
enum Measure {
    #[default]
    All,
    Limited,
}

#[cfg(target_os = "linux")]
impl Args {
    fn is_action(&self) -> bool {
        let names = [&self.stat, &self.update, &self.freeze, &self.thaw, &self.kill, &self.remove];
        self.list || names.iter().any(|name| name.is_some())
    }
}

#[cfg(target_os = "linux")]
fn seconds(word: &str) -> std::result::Result<f64, String> {
    match word.parse() {
        Ok(seconds) if (0.001..=1e6).contains(&seconds) => Ok(seconds),
        _ => Err("not a number of seconds".to_owned()),
    }
}

/// Does what the command line says and returns the payload's exit code.
#[cfg(target_os = "linux")]
pub fn run(args: Args) -> Result<ExitCode> {
    match cgroup::act(&args)? {
        Some(code) => Ok(code),
        None => cgroup::run(&args),
    }
}

/// A command line, on a platform that has no cgroups.
#[cfg(not(target_os = "linux"))]
#[derive(Debug, Parser)]
#[command(name = "jc-cgroup", version)]
pub struct Args {
    /// The options and the program
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// Says that the platform has no cgroups.
#[cfg(not(target_os = "linux"))]
pub fn run(_: Args) -> Result<ExitCode> {
    Ok(TOOL.unsupported("cgroups"))
}
