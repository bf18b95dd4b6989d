//! The command line.

pub mod mounts;
pub mod values;
pub mod words;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;
use jc_unshare::on_demand::OnDemand;

use crate::environment;
use crate::linux::landlock;
use crate::linux::mount::{mask, node};
use crate::linux::payload::rlimit::Ulimit;
use crate::linux::payload::{attributes, caps, gate, sysctl};
use crate::linux::seccomp::Seccomp;
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
    /// Mount nothing but what is asked for: no /proc, /dev and /sys, unless an option names them
    #[arg(long)]
    pub(crate) bare: bool,
    /// Mount as a line of fstab(5) says: SRC DST TYPE [OPTIONS] (repeatable, in this order)
    #[arg(long = "mount", value_name = "LINE", value_parser = words::word)]
    pub(crate) words: Vec<words::Word>,
    /// Make a device node: TYPE:MAJOR:MINOR:MODE:UID:GID:PATH (repeatable)
    #[arg(long = "node", value_name = "SPEC", value_parser = node::node)]
    pub(crate) nodes: Vec<node::Node>,
    /// Set the propagation of the root: [r]shared, [r]slave, [r]private or [r]unbindable (with --bare)
    #[arg(long, value_name = "HOW", value_parser = words::root_propagation, requires = "bare")]
    pub(crate) root_propagation: Option<(u64, words::Depth)>,
    /// Become root of the user namespace once the files of the host are open (with --bare)
    #[arg(long, requires = "bare")]
    pub(crate) become_root: bool,
    /// Mount in the mount namespace of this file, where the mounts stay, and change the root by chroot(2) (with --bare)
    #[arg(long, value_name = "PATH", requires = "bare", conflicts_with = "join_pid")]
    pub(crate) mount_namespace: Option<PathBuf>,
    /// Set a kernel setting of the namespaces: KEY=VALUE (repeatable)
    #[arg(long = "sysctl", value_name = "KEY=VALUE", value_parser = sysctl::sysctl)]
    pub(crate) sysctls: Vec<sysctl::Sysctl>,
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
    /// Make the user of PROG the owner of its standard streams, except devices
    #[arg(long)]
    pub(crate) own_stdio: bool,
    /// Set no_new_privs: no program raises its privileges, not even by set-user-ID
    #[arg(long)]
    pub(crate) no_new_privs: bool,
    /// Filter system calls by a profile: FILE, default, or unconfined
    #[arg(long, value_name = "PROFILE", default_value = "unconfined")]
    pub(crate) seccomp: Seccomp,
    /// Let the jc-trace at this descriptor record PROG, from its execution on
    #[arg(long, value_name = "N", conflicts_with_all = ["no_wait", "gates", "hooks"])]
    pub(crate) trace_fd: Option<u32>,
    /// Restrict PROG by a rule of jc-landlock, such as ro=PATH or connect=PORT; sets no_new_privs (repeatable)
    #[arg(long = "landlock", value_name = "RULE", value_parser = landlock::word)]
    pub(crate) landlock: Vec<landlock::Word>,
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
    /// Begin a new session, which has no controlling terminal
    #[arg(long)]
    pub(crate) new_session: bool,
    /// Give PROG a terminal of the container, and send the master side to a socket
    #[arg(long, value_name = "PATH")]
    pub(crate) console_socket: Option<PathBuf>,
    /// Set the size of the terminal (with --console-socket)
    #[arg(long, value_name = "ROWSxCOLUMNS", value_parser = values::terminal_size, requires = "console_socket")]
    pub(crate) console_size: Option<(u16, u16)>,
    /// Write events to this descriptor, as lines of JSON; PROG does not get it
    #[arg(long, value_name = "N")]
    pub(crate) status_fd: Option<u32>,
    /// Start PROG in the PID namespace of process PID, entered as the last step
    #[arg(long, value_name = "PID", conflicts_with_all = ["join", "chroot", "init_fd", "gates", "hooks"])]
    pub(crate) join_pid: Option<u32>,
    /// Stay as PID 1 that forwards signals and reaps orphans, and write stops of PROG to descriptor N
    #[arg(long, value_name = "N", conflicts_with_all = ["join", "chroot"])]
    pub(crate) init_fd: Option<u32>,
    /// Enter the root of the container of process PID, instead of assembling one
    #[arg(long, value_name = "PID", conflicts_with_all = [
        "layers", "record", "upper", "read_only", "binds", "tmpfs", "proc", "dev", "sys", "shm_size",
        "devices", "masks", "ro_paths", "chroot", "bare", "words", "nodes", "sysctls", "gates", "hooks",
    ])]
    pub(crate) join: Option<u32>,
    /// Exit as soon as PROG is executed, which lives on (with --join)
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// End PROG by SIGKILL when process PID dies, which must be the parent when PROG is executed
    #[arg(long, value_name = "PID", conflicts_with_all = ["join", "join_pid", "init_fd", "chroot"])]
    pub(crate) die_with_parent: Option<u32>,
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
    /// The mount at /proc.
    pub(crate) fn proc(&self) -> Proc {
        self.proc.unwrap_or(if self.bare { Proc::None } else { Proc::default() })
    }

    /// The mount at /dev.
    pub(crate) fn dev(&self) -> Dev {
        self.dev.unwrap_or(if self.bare { Dev::None } else { Dev::default() })
    }

    /// The mount at /sys.
    pub(crate) fn sys(&self) -> Sys {
        self.sys.unwrap_or(if self.bare { Sys::None } else { Sys::default() })
    }

    /// Whether the payload leads a session.
    pub(crate) fn leads_session(&self) -> bool {
        self.new_session || self.console_socket.is_some()
    }
}

fn absolute(word: &str) -> std::result::Result<PathBuf, String> {
    let path = PathBuf::from(word);
    if path.is_absolute() { Ok(path) } else { Err("not an absolute path".to_owned()) }
}
