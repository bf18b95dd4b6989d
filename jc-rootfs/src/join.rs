//! `--join`: the mount namespace and root of a running container, in place of new ones.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use jc_unshare::namespaces::unshare;
use jc_unshare::sys::{clone, setns};
use jc_unshare::{Context, Error, Result};
use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags, open, openat, statvfs};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{DumpableBehavior, chroot, fchdir, set_dumpable_behavior};

use crate::Args;
use crate::fscontext::{clone_mount, restrict_tree};
use crate::payload::{self, Host, Place};
use crate::resolve::Missing;
use crate::sys::{self, attr};

/// Enters the container of a process and starts the program there. Returns only an error.
pub fn enter(args: &Args, pid: u32, program: &[OsString]) -> Error {
    match prepare(args, pid) {
        Ok((place, host)) => payload::run(args, program, place, host),
        Err(error) => error,
    }
}

fn prepare(args: &Args, pid: u32) -> Result<(Place, Host)> {
    // Those in the container must not look through this process at the host, of which it still has
    // the root: they may be of the same user, with capabilities in the same user namespace.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).op("PR_SET_DUMPABLE")?;
    run_from_read_only()?;
    let mut host = Host::look(args)?;
    // All of it through one directory, so that it is of one process, however PIDs are reused. Not
    // through a pidfd: the number is that of this procfs, and this process may have joined the
    // container's PID namespace already, where it means another one or none.
    let path = PathBuf::from(format!("/proc/{pid}"));
    let process = open(&path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let process = process.on("open", &path)?;
    let part = |name: &str, flags| {
        openat(&process, name, flags | OFlags::CLOEXEC, Mode::empty())
            .on("open", path.join(name))
            .map_err(|e| {
                e.hint("joining needs CAP_SYS_PTRACE and CAP_SYS_ADMIN over the container")
            })
    };
    let namespace: OwnedFd = part("ns/mnt", OFlags::RDONLY)?;
    let root: OwnedFd = part("root", OFlags::PATH | OFlags::DIRECTORY)?;
    setns(namespace.as_fd(), clone::NEWNS).on("setns", path.join("ns/mnt"))?;
    fchdir(&root).on("chdir", path.join("root"))?;
    chroot(".").on("chroot", path.join("root"))?;
    host.open_console(root.as_fd(), false)?;
    Ok((Place::new(args, root, Missing::MakeDir)?, host))
}

/// Executes this program once more, from a read-only mount of its file that is nowhere to be seen.
/// What is in the container already can see the new process, and open its /proc/PID/exe: it must not
/// be able to write there (CVE-2019-5736). A file on a read-only mount needs no such thing.
fn run_from_read_only() -> Result<()> {
    let exe = Path::new("/proc/self/exe");
    if statvfs(exe).on("statvfs", exe)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(());
    }
    // A mount namespace that this process may copy mounts of: its own.
    unshare(clone::NEWNS)?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).on("make private", "/")?;
    let path = rustix::fs::readlinkat(CWD, exe, Vec::new()).on("readlink", exe)?;
    let path = PathBuf::from(OsString::from_vec(path.into_bytes()));
    let copy = clone_mount(&path, false)?;
    restrict_tree(copy.as_fd(), attr::RDONLY, &path)?;
    let arguments = std::env::args_os().map(|word| CString::new(word.into_vec()));
    let arguments: std::result::Result<Vec<CString>, _> = arguments.collect();
    let arguments = arguments.map_err(|_| Error::usage("a NUL byte in an argument"))?;
    Err(sys::execute(copy.as_fd(), &arguments)).on("execveat", &path)
}
