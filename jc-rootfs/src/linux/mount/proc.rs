//! /proc of a container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use jc_unshare::procfs::is_procfs;
use jc_unshare::{Error, Result};
use nix::libc;

use super::dev::NOTHING_RUNS;
use super::fscontext::{attach, clone_tree, new_mount, restrict_tree};
use super::resolve::real_dir;
use crate::linux::args::values::Proc;
use crate::linux::userns;

/// Mounts procfs as it is asked for; `other` is a mount of the procfs of a PID namespace that this process is
/// not in.
pub fn mount_proc(root: BorrowedFd<'_>, how: Proc, other: Option<OwnedFd>) -> Result<()> {
    if how == Proc::None {
        return Ok(());
    }
    let target = real_dir(root, "proc")?;
    let path = Path::new("/proc");
    if let Some(proc) = other {
        restrict_tree(proc.as_fd(), NOTHING_RUNS, path)?;
        return attach(&proc, &target, path);
    }
    let proc = match how {
        Proc::Bind => present()?,
        _ => match new_mount("proc", &[], NOTHING_RUNS) {
            // EPERM: the user namespace does not own the PID namespace.
            Err(error)
                if how == Proc::Auto
                    && error.errno() == Some(libc::EPERM)
                    && userns::proc_is_ours()? =>
            {
                present()?
            }
            Err(error) => {
                return Err(error.hint(
                    "a user namespace can mount procfs only of a PID namespace made in it: \
                     jc-unshare -Up",
                ));
            }
            Ok(proc) => proc,
        },
    };
    attach(&proc, &target, path)
}

/// The procfs that is at /proc now.
fn present() -> Result<OwnedFd> {
    let path = Path::new("/proc");
    let proc = clone_tree(path)?;
    if !is_procfs(proc.as_fd())? {
        return Err(Error::new("bind /proc: is not a procfs"));
    }
    restrict_tree(proc.as_fd(), NOTHING_RUNS, path)?;
    Ok(proc)
}
