//! `--join`: the mount namespace, root and PID namespace of a running container, in place of new ones.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jc_unshare::namespaces::unshare;
use jc_unshare::supervise::{Lifeline, spawn};
use jc_unshare::sys::{clone, setns};
use jc_unshare::{Context, Error, Result};
use rustix::fs::{Mode, OFlags, StatVfsMountFlags, fstat, open, openat, stat, statvfs};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{chroot, fchdir};

use crate::environment::Environment;
use crate::payload::{self, Host, Place};
use crate::program::{read_only_self, strings};
use crate::resolve::Missing;
use crate::sys;
use crate::{Args, TOOL};

/// Enters the container of a process and starts the program there.
///
/// The PID namespace comes with the rest, and last: a process that those inside can see before it has
/// left the host's root would let them look at the host through it, by /proc/PID/root and ptrace(2), if
/// their capabilities are as many as its own (CVE-2016-9962). So the program is a child, which begins
/// where nothing of the host is left.
pub fn enter(args: &Args, pid: u32, program: &[OsString]) -> Result<ExitCode> {
    run_from_read_only()?;
    let host = Host::look(args)?;
    let (root, changes_pid) = enter_namespaces(pid)?;
    if !changes_pid && !payload::needs_child_to_lead(args) {
        return Err(start(args, program, root, host, None));
    }
    let child = spawn(TOOL, 0, None, |life| start(args, program, root, host, Some(life)))?;
    child.wait().map(Into::into)
}

/// Returns only an error.
fn start(
    args: &Args,
    program: &[OsString],
    root: OwnedFd,
    mut host: Host,
    life: Option<&Lifeline>,
) -> Error {
    let prepare = || {
        host.begin_session(args)?;
        host.open_console(root.as_fd(), false)?;
        Place::new(args, root, Missing::MakeDir)
    };
    match prepare() {
        Ok(place) => payload::run(args, program, place, host, life),
        Err(error) => error,
    }
}

/// Enters the mount namespace and the root of a process, and lets the next child begin in its PID
/// namespace. Gives the root, and whether that is another PID namespace than this process's.
fn enter_namespaces(pid: u32) -> Result<(OwnedFd, bool)> {
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
    let mounts: OwnedFd = part("ns/mnt", OFlags::RDONLY)?;
    let root: OwnedFd = part("root", OFlags::PATH | OFlags::DIRECTORY)?;
    let pids: OwnedFd = part("ns/pid", OFlags::RDONLY)?;
    let own = "/proc/self/ns/pid";
    let changes_pid =
        fstat(&pids).on("stat", path.join("ns/pid"))?.st_ino != stat(own).on("stat", own)?.st_ino;
    if changes_pid {
        setns(pids.as_fd(), clone::NEWPID).on("setns", path.join("ns/pid"))?;
    }
    setns(mounts.as_fd(), clone::NEWNS).on("setns", path.join("ns/mnt"))?;
    fchdir(&root).on("chdir", path.join("root"))?;
    chroot(".").on("chroot", path.join("root"))?;
    Ok((root, changes_pid))
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
    let copy = read_only_self()?;
    let error = sys::execute(
        copy.as_fd(),
        &strings(std::env::args_os())?,
        &Environment::default().strings()?,
    );
    Err(error).op("execveat jc-rootfs")
}
