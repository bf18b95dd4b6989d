//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgGroup, Parser};
use jc_unshare::{Error, Result};

use super::filter::Watched;
use super::keeper::Fate;

/// Record the system calls, files, programs and connections of PROG, or turn reports into rules
#[derive(Debug, Parser)]
#[command(
    name = "jc-trace",
    version,
    override_usage = "jc-trace --report FILE [options] [--] PROG [ARG...]\n       \
                      jc-trace --seccomp|--files|--allow|--limits|--landlock REPORT...",
    group = ArgGroup::new("rules").args(["seccomp", "files", "allow", "limits", "landlock"]),
)]
pub struct Args {
    #[command(flatten)]
    pub(super) record: RecordArgs,
    #[command(flatten)]
    pub(super) rules: RuleArgs,
    /// The program and its arguments, or reports
    #[arg(trailing_var_arg = true, value_name = "PROG|REPORT")]
    pub operands: Vec<OsString>,
}

/// The options of a recorder.
#[derive(Debug, clap::Args)]
pub struct RecordArgs {
    /// Write the report to this file or descriptor, as lines of JSON
    #[arg(long, value_name = "FILE|FD", conflicts_with = "rules")]
    pub report: Option<OsString>,
    /// Write a line for each event when it happens, instead of one for all that are the same
    #[arg(long, requires = "report")]
    pub all: bool,
    #[command(flatten)]
    pub(super) watched: Watched,
    /// Record the program of a chain, whose last link is jc-rootfs --trace-fd N
    #[arg(long, value_name = "N", conflicts_with = "rules")]
    pub trace_fd: Option<u32>,
    /// Add the report of jc-cgroup from this file, or from a pipe with this number for the chain
    #[arg(long, value_name = "FILE|FD", requires = "report")]
    pub usage: Option<OsString>,
    /// Add the names that jc-egress writes to this log
    #[arg(long, value_name = "FILE", requires = "report")]
    pub egress_log: Option<PathBuf>,
    /// If this process is killed, end the program, or let it run on unrecorded
    #[arg(long, value_name = "FATE", value_enum, default_value = "end")]
    pub on_death: Fate,
}

/// The options for rules from reports.
#[derive(Clone, Debug, clap::Args)]
pub struct RuleArgs {
    /// Print a seccomp profile, in the form of the OCI
    #[arg(long)]
    pub seccomp: bool,
    /// Print the paths that were used and existed, one a line, for jc-commit --only
    #[arg(long)]
    pub files: bool,
    /// Print the connections, as rules for jc-egress --allow-file
    #[arg(long)]
    pub allow: bool,
    /// Print options of jc-cgroup for the resources that were used
    #[arg(long)]
    pub limits: bool,
    /// Print rules for jc-landlock --rules
    #[arg(long)]
    pub landlock: bool,
    /// Allow only calls that this profile allows too: default (with --seccomp)
    #[arg(long, value_name = "PROFILE", value_parser = ["default"], requires = "seccomp")]
    pub base: Option<String>,
    /// Allow only calls of the reports, which need --calls (with --seccomp)
    #[arg(long, requires = "seccomp")]
    pub exact: bool,
    /// Add this share of what was used to each limit, in percent (with --limits)
    #[arg(long, value_name = "PERCENT", default_value_t = 50, requires = "limits")]
    pub margin: u32,
}

impl RuleArgs {
    /// Whether rules are asked for.
    pub fn is_given(&self) -> bool {
        self.seccomp || self.files || self.allow || self.limits || self.landlock
    }
}

impl RecordArgs {
    /// The target of the report. Usage error: none is given.
    pub fn target(&self) -> Result<&OsString> {
        self.report.as_ref().ok_or_else(|| {
            Error::usage(
                "no report: --report FILE records, --seccomp FILE and others read a report",
            )
        })
    }
}
