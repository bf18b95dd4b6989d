//! The command line.

pub mod groups;
pub mod mounts;
pub mod values;
pub mod words;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;
use jc_unshare::on_demand::OnDemand;

use crate::environment;
use crate::linux::mount::mask;
use crate::linux::payload::rlimit::Ulimit;
use crate::linux::payload::{attributes, caps, gate};
use crate::linux::seccomp::Seccomp;
use groups::{ManualArgs, ProcessArgs};
use mounts::Mount;
use values::{Dev, Proc, Sys, Upper};

/// Assemble a root file system, make it "/", then run PROG in it
#[derive(Debug, Parser)]
#[group(skip)]
#[command(
    name = "jc-rootfs",
    version,
    override_usage = "jc-rootfs [options] ROOT [--] PROG [ARG...]\n       \
                      jc-rootfs [options] --layer DIR... [--] PROG [ARG...]\n       \
                      jc-rootfs [options] --record FILE [--] PROG [ARG...]\n       \
                      jc-rootfs [options] --join PID [--] PROG [ARG...]"
)]
pub struct Args {
    /// Add a layer to the root, lowest first, as an overlayfs directory (repeatable)
    #[arg(long = "layer", value_name = "DIR", conflicts_with = "record")]
    pub(crate) layers: Vec<PathBuf>,
    /// Take the root from a record, the line that jc-pull prints
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    /// Leave the root unchanged, and keep changes in DIR or tmpfs[:SIZE]
    #[arg(long, value_name = "WHERE")]
    pub(crate) upper: Option<Upper>,
    /// Make the root read-only
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Mount this at /proc [default: auto]
    #[arg(long, value_name = "HOW", value_enum)]
    pub(crate) proc: Option<Proc>,
    /// Mount this at /dev [default: minimal]
    #[arg(long, value_name = "HOW", value_enum)]
    pub(crate) dev: Option<Dev>,
    /// Mount this at /sys [default: ro]
    #[arg(long, value_name = "HOW", value_enum)]
    pub(crate) sys: Option<Sys>,
    /// Set the size of /dev/shm
    #[arg(long, value_name = "SIZE", default_value = "64m", value_parser = values::tmpfs_size)]
    pub(crate) shm_size: String,
    /// Show a device of the host: PATH[:DST] (repeatable)
    #[arg(long = "device", value_name = "SPEC", value_parser = mounts::device)]
    pub(crate) devices: Vec<Mount>,
    /// Show a file or directory of the host: SRC:DST[:ro,nosuid,noexec,dev,upper=DIR,...] (repeatable)
    #[arg(short = 'v', long = "bind", value_name = "SPEC", value_parser = mounts::bind)]
    pub(crate) binds: Vec<Mount>,
    /// Mount an empty tmpfs: DST[:size=SIZE,mode=MODE] (repeatable)
    #[arg(long, value_name = "SPEC", value_parser = mounts::tmpfs)]
    pub(crate) tmpfs: Vec<Mount>,
    #[command(flatten)]
    pub(crate) manual: OnDemand<ManualArgs>,
    #[command(flatten)]
    pub(crate) gates: OnDemand<gate::GateArgs>,
    #[command(flatten)]
    pub(crate) mask: mask::MaskArgs,
    /// Run as this user of the root: NAME|UID[:GROUP|GID]
    #[arg(short = 'u', long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Add a group of the root to the payload's: NAME|GID (repeatable)
    #[arg(long = "group-add", value_name = "GROUP")]
    pub(crate) groups: Vec<String>,
    #[command(flatten)]
    pub(crate) caps: caps::CapabilityArgs,
    #[command(flatten)]
    pub(crate) attributes: OnDemand<attributes::AttributeArgs>,
    /// Set no_new_privs: no program raises its privileges, not even by set-user-ID
    #[arg(long)]
    pub(crate) no_new_privs: bool,
    /// Filter system calls by a profile: FILE, default, or unconfined
    #[arg(long, value_name = "PROFILE", default_value = "unconfined")]
    pub(crate) seccomp: Seccomp,
    /// Limit a resource: NAME=SOFT[:HARD], as in getrlimit(2) (repeatable)
    #[arg(long = "ulimit", value_name = "LIMIT")]
    pub(crate) ulimits: Vec<Ulimit>,
    /// Start in this directory of the root, made if it is missing (not with --chroot and --join)
    #[arg(short = 'w', long, value_name = "DIR", value_parser = absolute)]
    pub(crate) workdir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) environment: environment::EnvironmentArgs,
    /// Pass N descriptors from 3 on to PROG; all others above 2 are closed
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=1 << 20))]
    pub(crate) preserve_fds: u32,
    /// Write events to this descriptor, as lines of JSON; PROG does not get it
    #[arg(long, value_name = "N")]
    pub(crate) status_fd: Option<u32>,
    /// Enter the network namespace that comes from the socket of this number, before /sys is mounted
    #[arg(long, value_name = "N", conflicts_with_all = ["join", "chroot"])]
    pub(crate) net_fd: Option<u32>,
    #[command(flatten)]
    pub(crate) process: OnDemand<ProcessArgs>,
    /// Only chroot(2) into ROOT, for systems without mount namespaces
    #[arg(long, conflicts_with_all = [
        "layers", "record", "upper", "read_only", "binds", "tmpfs", "proc", "dev", "sys", "shm_size",
        "devices", "masks", "ro_paths", "console_socket", "status_fd", "bare", "words", "nodes", "sysctls",
        "gates", "hooks",
    ])]
    pub(crate) chroot: bool,
    /// The root, unless --layer or --record gives it; the program and its arguments
    #[arg(trailing_var_arg = true, value_name = "ROOT PROG")]
    pub(crate) operands: Vec<OsString>,
}

impl Args {
    /// Whether the root is "/" of the caller.
    pub(crate) fn shows_own_root(&self) -> bool {
        let has_operand =
            self.record.is_none() && self.layers.is_empty() && self.process.join.is_none();
        has_operand && self.operands.first().is_some_and(|root| root == "/")
    }

    /// The mount at /proc.
    pub(crate) fn proc(&self) -> Proc {
        self.proc.unwrap_or(if self.manual.bare { Proc::None } else { Proc::default() })
    }

    /// The mount at /dev.
    pub(crate) fn dev(&self) -> Dev {
        self.dev.unwrap_or(if self.manual.bare { Dev::None } else { Dev::default() })
    }

    /// The mount at /sys.
    pub(crate) fn sys(&self) -> Sys {
        self.sys.unwrap_or(if self.manual.bare { Sys::None } else { Sys::default() })
    }

    /// Whether the payload leads a session.
    pub(crate) fn leads_session(&self) -> bool {
        self.process.new_session || self.process.console_socket.is_some()
    }
}

fn absolute(word: &str) -> std::result::Result<PathBuf, String> {
    let path = PathBuf::from(word);
    if path.is_absolute() { Ok(path) } else { Err("not an absolute path".to_owned()) }
}
