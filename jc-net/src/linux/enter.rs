//! The entry of an existing network namespace, and the privileges of this process in its own.

use std::fs;
use std::path::Path;

use jc_unshare::capability::NET_ADMIN;
use jc_unshare::hints::capable;
use jc_unshare::namespaces::enter_network;
use jc_unshare::procfs::owns;
use jc_unshare::{Context, Error, Result, userns};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::linux::mode::Network;

/// The default of `--network`: a bridge if this process can create one, else pasta(1).
pub fn default_network() -> Result<Network> {
    let can = owns("net")? && capable(NET_ADMIN);
    Ok(if can { Network::Bridge } else { Network::Pasta })
}

/// Enters the namespace of a file. Errors are those of [`enter_network`].
pub fn file(path: &Path) -> Result<()> {
    // O_NONBLOCK: the open of a FIFO would wait.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).on("open", path)?;
    enter_network(file, path).map_err(|error| match error.errno().map(Errno::from_raw_os_error) {
        Some(Errno::PERM) => error.hint(
            "this needs CAP_SYS_ADMIN here and in the user namespace that the network belongs to: \
             jc-unshare --join PID:user enters that of a process",
        ),
        _ => error,
    })
}

/// Enters the namespace of a process. ENOENT: no process has the PID.
pub fn process(pid: u32) -> Result<()> {
    let path = format!("/proc/{pid}/ns/net");
    file(Path::new(&path)).map_err(|error: Error| match fs::exists(format!("/proc/{pid}")) {
        Ok(false) => Error::new(format_args!("join {pid}: No such process")),
        _ => error,
    })
}

/// Whether this process is root of the initial user namespace.
pub fn is_root_of_host() -> Result<bool> {
    Ok(rustix::process::geteuid().is_root() && userns::is_initial()?)
}
