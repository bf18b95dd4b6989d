//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;
use jc_unshare::namespaces::Basic;
use jc_unshare::on_demand::{Group, OnDemand};
use jc_unshare::{Error, Result};

use super::limits::Limits;

/// Run PROG in a cgroup of its own, with limits and a report of its usage
#[derive(Debug, Parser)]
#[group(skip)]
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
    pub(super) limits: Limits,
    /// Make the group below this one, a path from the top of the hierarchy
    #[arg(long, alias = "cgroup-parent", value_name = "PATH", value_parser = super::parent::below_top)]
    pub(super) parent: Option<PathBuf>,
    /// Use the group of this path in every hierarchy, made if missing, and leave the group at the end
    #[arg(long, value_name = "PATH", value_parser = super::parent::absolute, conflicts_with_all = ["parent", "name", "evacuate", "delegate"])]
    pub(super) path: Option<PathBuf>,
    /// Give the group a name
    #[arg(long, value_name = "NAME", value_parser = super::group::name)]
    pub(super) name: Option<String>,
    /// Move processes of the parent group to a group beside it (cgroup v2)
    #[arg(long)]
    pub(super) evacuate: bool,
    /// Let PROG make groups below its own
    #[arg(long)]
    pub(super) delegate: bool,
    /// Write the resource usage to a file or descriptor, as JSON
    #[arg(long, value_name = "FILE|FD", conflicts_with = "exec", allow_hyphen_values = true)]
    pub(super) report: Option<String>,
    /// Write events to this descriptor, as lines of JSON
    #[arg(long, value_name = "N")]
    pub(super) status_fd: Option<u32>,
    /// Measure all resources, or only those with a limit, which is quicker (with --report or --status-fd)
    #[arg(long, value_name = "WHAT", value_enum, default_value_t, requires = "reports")]
    pub(super) measure: Measure,
    #[command(flatten)]
    pub(super) namespaces: OnDemand<Basic>,
    /// Join and execute, without staying to clean up
    #[arg(long)]
    pub(super) exec: bool,
    /// Exit as soon as PROG is executed as a child, which lives on (with --path)
    #[arg(long, requires = "path", conflicts_with_all = ["exec", "join", "report"])]
    pub(super) no_wait: bool,
    /// Execute PROG in a running group
    #[arg(long, value_name = "NAME", conflicts_with_all = ["name", "path", "report", "exec", "delegate"])]
    pub(super) join: Option<String>,
    /// Join a group that is frozen too: PROG runs once the group is thawed (with --join)
    #[arg(long, requires = "join")]
    pub(super) frozen: bool,
    #[command(flatten)]
    pub(super) action: OnDemand<Action>,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, value_name = "PROG")]
    pub(super) program: Vec<OsString>,
}

impl Args {
    /// Usage errors: namespaces without a child to make them for, or settings without their namespace.
    pub fn check_namespaces(&self) -> Result<()> {
        let new = &self.namespaces;
        new.check_names(new.uts)?;
        new.check_loopback(new.net)?;
        let forks = !self.exec && self.join.is_none() && !self.action.any();
        if new.flags() != 0 && !forks {
            return Err(Error::usage("no namespaces are made with --exec, --join or an action"));
        }
        Ok(())
    }
}

/// The resources that are measured.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Measure {
    #[default]
    /// All resources that the kernel counts.
    All,
    /// Resources with a limit.
    Limited,
}

/// Actions on groups, which run no program.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
#[command(group(clap::ArgGroup::new("action").conflicts_with_all([
    "path", "name", "evacuate", "delegate", "report", "status_fd", "measure", "exec", "no_wait", "join",
])))]
pub struct Action {
    /// Print the resource usage of a group, as JSON
    #[arg(long, value_name = "NAME", group = "action")]
    pub(super) stat: Option<String>,
    /// With --stat, print a line every SECONDS until the group is gone
    #[arg(long, value_name = "SECONDS", requires = "stat", value_parser = seconds)]
    pub(super) watch: Option<f64>,
    /// Change the limits of a group
    #[arg(long, value_name = "NAME", group = "action")]
    pub(super) update: Option<String>,
    /// Stop all processes of a group
    #[arg(long, value_name = "NAME", group = "action")]
    pub(super) freeze: Option<String>,
    /// Continue all processes of a group
    #[arg(long, value_name = "NAME", group = "action")]
    pub(super) thaw: Option<String>,
    /// Kill all processes of a group
    #[arg(long, value_name = "NAME", group = "action")]
    pub(super) kill: Option<String>,
    /// Remove a group that --exec has left, with its processes
    #[arg(long, value_name = "NAME", group = "action")]
    pub(super) remove: Option<String>,
    /// Remove groups whose jc-cgroup is dead, and print the others: name, processes, bytes of memory
    #[arg(long, group = "action")]
    pub(super) list: bool,
}

impl Group for Action {
    const NAMES: &'static [(&'static str, Option<char>)] = &[
        ("stat", None),
        ("watch", None),
        ("update", None),
        ("freeze", None),
        ("thaw", None),
        ("kill", None),
        ("remove", None),
        ("list", None),
    ];
}

impl Action {
    /// Whether the command line names an action.
    pub fn any(&self) -> bool {
        let names = [&self.stat, &self.update, &self.freeze, &self.thaw, &self.kill, &self.remove];
        self.list || names.iter().any(|name| name.is_some())
    }
}

fn seconds(word: &str) -> std::result::Result<f64, String> {
    match word.parse() {
        Ok(seconds) if (0.001..=1e6).contains(&seconds) => Ok(seconds),
        _ => Err("not a number of seconds".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_all_actions() {
        jc_unshare::on_demand::assert_names::<Action>();
    }
}
