//! The namespaces that this package owns: UTS, IPC, PID, cgroup, time, and a bare network one.

use std::fs::{self, File};
use std::os::fd::AsFd;

use crate::error::{Context, Error, Result};
use crate::sys::{self, clone};

/// New namespaces to enter, as the command line names them (unshare(1)'s letters).
#[derive(Clone, Debug, Default, clap::Args)]
pub struct New {
    /// New PID namespace: the program is its PID 1, and all of it ends with the program
    #[arg(short = 'p', long = "pid")]
    pub pid: bool,
    /// New UTS namespace: host and domain name
    #[arg(short = 'u', long = "uts")]
    pub uts: bool,
    /// New IPC namespace: System V IPC and POSIX message queues
    #[arg(short = 'i', long = "ipc")]
    pub ipc: bool,
    /// New network namespace, all interfaces down (jc-net makes usable ones)
    #[arg(short = 'n', long = "net")]
    pub net: bool,
    /// New cgroup namespace: the present cgroup becomes its root
    #[arg(short = 'C', long = "cgroup")]
    pub cgroup: bool,
    /// New time namespace: the monotonic and boot-time clocks
    #[arg(short = 'T', long = "time")]
    pub time: bool,
}

impl New {
    /// The clone(2) flags of all but the time namespace, which [`enter_time`] makes.
    pub fn clone_flags(&self) -> u64 {
        [
            (self.pid, clone::NEWPID),
            (self.uts, clone::NEWUTS),
            (self.ipc, clone::NEWIPC),
            (self.net, clone::NEWNET),
            (self.cgroup, clone::NEWCGROUP),
        ]
        .into_iter()
        .filter_map(|(wanted, flag)| wanted.then_some(flag))
        .sum()
    }
}

/// Makes a new time namespace and moves the calling process there. unshare(2) alone moves only
/// children (time_namespaces(7)), and on kernels before 6.1 not even the next program.
pub fn enter_time() -> Result<()> {
    sys::unshare(clone::NEWTIME).op("unshare time namespace").map_err(advise)?;
    let path = "/proc/self/ns/time_for_children";
    let namespace = File::open(path).on("open", path)?;
    sys::setns(namespace.as_fd(), clone::NEWTIME).on("setns", path)
}

/// Makes a failure to create a namespace say what is missing on this machine.
pub fn advise(error: Error) -> Error {
    let Some(hint) = missing() else { return error };
    error.hint(hint)
}

/// What keeps this process from making namespaces, as far as the kernel tells.
fn missing() -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let effective = u64::from_str_radix(effective.trim(), 16).ok()?;
    if effective >> CAP_SYS_ADMIN & 1 == 0 {
        return Some("this needs CAP_SYS_ADMIN: run as root".to_owned());
    }
    for kind in ["pid", "uts", "ipc", "net", "cgroup", "time"] {
        let sysctl = format!("/proc/sys/user/max_{kind}_namespaces");
        if fs::read_to_string(&sysctl).is_ok_and(|limit| limit.trim() == "0") {
            return Some(format!("the sysctl user.max_{kind}_namespaces is 0"));
        }
    }
    None
}

/// capabilities(7)
const CAP_SYS_ADMIN: u32 = 21;

/// Sets the host name, in the UTS namespace that the caller has made. At most 64 bytes.
pub fn set_hostname(name: &str) -> Result<()> {
    nix::unistd::sethostname(name).on("sethostname", name).map_err(|e| {
        if name.len() > HOST_NAME_MAX {
            e.hint(format_args!("a host name has at most {HOST_NAME_MAX} bytes"))
        } else {
            e
        }
    })
}

/// gethostname(2)
const HOST_NAME_MAX: usize = 64;
