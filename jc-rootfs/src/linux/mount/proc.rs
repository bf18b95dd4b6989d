//! /proc of a container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use jc_unshare::procfs::{is_procfs, status};
use jc_unshare::{Error, Result, userns};
use nix::libc;

use super::fscontext::{attach, clone_tree, new_mount, restrict_tree};
use super::resolve::real_dir;
use crate::linux::args::values::Proc;
use crate::linux::sys::attr;

/// Mounts /proc. `joined` is a detached mount of the procfs of another PID namespace, to mount in place of one
/// of this namespace.
pub fn mount_proc(root: BorrowedFd<'_>, kind: Proc, joined: Option<OwnedFd>) -> Result<()> {
    if kind == Proc::None {
        return Ok(());
    }
    let target = real_dir(root, "proc")?;
    let path = Path::new("/proc");
    let proc = match (joined, kind) {
        (Some(proc), _) => {
            restrict_tree(proc.as_fd(), attr::DATA_ONLY, path)?;
            proc
        }
        (None, Proc::Bind) => clone_proc()?,
        (None, _) => new_proc(kind)?,
    };
    attach(&proc, &target, path)
}

/// Mounts a new procfs. The kernel refuses that (EPERM) to a user namespace that does not own the PID namespace,
/// and where other mounts cover parts of every procfs (mount_too_revealing in Linux' fs/namespace.c).
fn new_proc(kind: Proc) -> Result<OwnedFd> {
    match new_mount("proc", &[], attr::DATA_ONLY) {
        Err(error)
            if kind == Proc::Auto
                && error.errno() == Some(libc::EPERM)
                && !userns::is_initial()?
                && shows_own_namespace()? =>
        {
            clone_proc()
        }
        made => made.map_err(|error| {
            error.hint(
                "a user namespace can mount procfs only of a PID namespace made in it: \
                 jc-unshare -Up",
            )
        }),
    }
}

/// Whether the procfs at /proc is that of this PID namespace: in the procfs of an outer namespace, a process has
/// several PIDs (`NSpid` in proc(5)).
fn shows_own_namespace() -> Result<bool> {
    Ok(status("NSpid")?.is_some_and(|pids| pids.split_whitespace().count() == 1))
}

/// Copies the mounts at /proc and below.
fn clone_proc() -> Result<OwnedFd> {
    let path = Path::new("/proc");
    let proc = clone_tree(path)?;
    if !is_procfs(proc.as_fd())? {
        return Err(Error::new("bind /proc: is not a procfs"));
    }
    restrict_tree(proc.as_fd(), attr::DATA_ONLY, path)?;
    Ok(proc)
}
