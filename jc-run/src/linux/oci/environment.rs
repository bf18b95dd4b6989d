//! The global options, as meanings.

use std::path::PathBuf;

use jc_unshare::{Context, Error, Result, Tool};

use super::args::Args;
use super::log::Log;

/// The name of the program. The exit statuses are those of runc.
pub const TOOL: Tool = Tool::source("jc-oci");

/// The maker of the cgroup of a container.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Manager {
    /// jc-cgroup makes its directories.
    Files,
    /// systemd makes it as a scope.
    Systemd,
    /// No cgroup is made.
    None,
}

/// The options that all commands share.
#[derive(Debug)]
pub struct Environment {
    /// The directory of `--root`.
    pub root: Option<PathBuf>,
    pub log: Log,
    pub manager: Manager,
    /// Whether a container may be without a cgroup where none can be made.
    pub is_rootless: bool,
    /// Whether the chain is printed in place of being run.
    pub prints: bool,
}

impl Environment {
    /// Reads the options, and opens the log.
    pub fn new(args: &Args) -> Result<Self> {
        let manager = match args.cgroup_manager.as_str() {
            "systemd" => Manager::Systemd,
            "disabled" => Manager::None,
            _ if args.systemd_cgroup => Manager::Systemd,
            _ => Manager::Files,
        };
        let is_root = rustix::process::geteuid().is_root();
        Ok(Self {
            root: args.root.clone(),
            log: Log::open(args.log.as_deref(), &args.log_format, args.debug)?,
            manager,
            is_rootless: match args.rootless.as_str() {
                "true" => true,
                "false" => false,
                _ => !is_root || !jc_unshare::userns::is_initial()?,
            },
            prints: args.print,
        })
    }
}

/// The permitted capabilities of this process, a bit for each (proc_pid_status(5)).
pub fn held_capabilities() -> Result<u64> {
    let path = "/proc/self/status";
    let text = std::fs::read_to_string(path).on("read", path)?;
    let mask = text.lines().find_map(|line| line.strip_prefix("CapPrm:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.ok_or_else(|| Error::new(format_args!("read {path}: no CapPrm")))
}
