//! `--join`: the mount namespace, root and PID namespace of a running container, in place of new ones.

use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jc_unshare::descriptor::open_dir;
use jc_unshare::namespaces::unshare;
use jc_unshare::procfs::{self, is_procfs};
use jc_unshare::supervise::{Lifeline, spawn};
use jc_unshare::sys::{clone, setns};
use jc_unshare::{Context, Error, Result};
use rustix::fs::{Mode, OFlags, StatVfsMountFlags, fstat, openat, statvfs};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{chroot, fchdir};

use super::args::Args;
use super::copy;
use super::mount::fscontext::clone_mount;
use super::mount::resolve::Missing;
use super::payload::program::{read_only_self, strings};
use super::payload::{self, Host, Place};
use super::sys;
use crate::TOOL;

/// Enters the container of a process and starts the program there. If that is another PID namespace, the
/// program begins as a [`copy`].
pub fn enter(args: &Args, pid: u32, program: &[OsString]) -> Result<ExitCode> {
    run_from_read_only(args)?;
    let host = Host::look(args)?;
    let target = Target::open(pid)?;
    let pids = target.other_pids()?;
    let root = target.enter_root()?;
    if let Some(pids) = pids {
        return copy::start(args, program, &pids, host, |host| place(args, root, host));
    }
    if !payload::needs_child_to_lead(args) {
        return Err(start(args, program, root, host, None));
    }
    let child = spawn(TOOL, 0, None, |life| start(args, program, root, host, Some(life)))?;
    child.wait_holding(&[]).map(Into::into)
}

/// Returns only an error.
fn start(
    args: &Args,
    program: &[OsString],
    root: OwnedFd,
    mut host: Host,
    life: Option<&Lifeline>,
) -> Error {
    match host.begin_session(args).and_then(|()| place(args, root, &mut host)) {
        Ok(place) => payload::run(args, program, place, host, life),
        Err(error) => error,
    }
}

/// Where the program starts in a root that this process has entered.
fn place(args: &Args, root: OwnedFd, host: &mut Host) -> Result<Place> {
    host.open_console(root.as_fd(), false)?;
    Place::new(args, root, Missing::MakeDir)
}

/// A process of the container, by its directory in /proc, which stays that of one process however PIDs are
/// reused. A pidfd would not do: the number is that of this procfs, and this process may be in the
/// container's PID namespace, where the number means another process or none.
pub struct Target {
    path: PathBuf,
    directory: OwnedFd,
}

impl Target {
    /// Opens the directory. ENOENT: there is no such process.
    pub fn open(pid: u32) -> Result<Self> {
        let path = PathBuf::from(format!("/proc/{pid}"));
        let directory = open_dir(&path)?;
        Ok(Self { path, directory })
    }

    fn part(&self, name: &str, flags: OFlags) -> Result<OwnedFd> {
        openat(&self.directory, name, flags | OFlags::CLOEXEC, Mode::empty())
            .on("open", self.path.join(name))
            .map_err(|e| {
                e.hint("joining needs CAP_SYS_PTRACE and CAP_SYS_ADMIN over the container")
            })
    }

    /// The PID namespace of the process, unless this process is in it.
    pub fn other_pids(&self) -> Result<Option<OwnedFd>> {
        let pids = self.part("ns/pid", OFlags::RDONLY)?;
        let is_own = inode(&pids)? == procfs::namespace("pid")?;
        Ok((!is_own).then_some(pids))
    }

    /// Enters the mount namespace and the root of the process, and gives the root.
    fn enter_root(&self) -> Result<OwnedFd> {
        let mounts = self.part("ns/mnt", OFlags::RDONLY)?;
        let root = self.part("root", OFlags::PATH | OFlags::DIRECTORY)?;
        setns(mounts.as_fd(), clone::NEWNS).on("setns", self.path.join("ns/mnt"))?;
        fchdir(&root).on("chdir", self.path.join("root"))?;
        chroot(".").on("chroot", self.path.join("root"))?;
        Ok(root)
    }

    /// A copy of the mount at /proc in the container, which must be a procfs of this PID namespace.
    pub fn procfs(&self, pids: &OwnedFd) -> Result<OwnedFd> {
        let path = Path::new("/proc");
        let proc = away(|| {
            self.enter_root()?;
            clone_mount(path, false)
        })?;
        let is_it = || -> Result<bool> {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let first = openat(&proc, "1/ns/pid", flags, Mode::empty()).op("open 1/ns/pid")?;
            Ok(is_procfs(proc.as_fd())? && inode(&first)? == inode(pids)?)
        };
        match is_it() {
            Ok(true) => Ok(proc),
            Ok(false) | Err(_) => {
                Err(Error::new("/proc of the container: not a procfs of its PID namespace"))
            }
        }
    }
}

fn inode(fd: &OwnedFd) -> Result<u64> {
    Ok(fstat(fd).op("fstat")?.st_ino)
}

/// Does something in another mount namespace, which `act` enters, and comes back to this one.
fn away<T>(act: impl FnOnce() -> Result<T>) -> Result<T> {
    let path = "/proc/self/ns/mnt";
    let here: OwnedFd = fs::File::open(path).on("open", path)?.into();
    let (root, directory) = (open_dir(Path::new("/"))?, open_dir(Path::new("."))?);
    let done = act();
    setns(here.as_fd(), clone::NEWNS).on("setns", path)?;
    fchdir(&root).on("chdir", "/")?;
    chroot(".").on("chroot", "/")?;
    fchdir(&directory).op("fchdir")?;
    done
}

/// Executes this program once more, from a read-only mount of its file that is nowhere to be seen, and with
/// no variables but those that the program is to get. A process inside that sees the new one may look into
/// its memory and open its /proc/PID/exe: the host's file must not be written to (CVE-2019-5736). This
/// process stays in a mount namespace of its own, where it may copy mounts.
fn run_from_read_only(args: &Args) -> Result<()> {
    if is_read_only()? {
        return Ok(());
    }
    private_mounts()?;
    execute(&read_only_self()?, args)
}

/// The same, but in the mount namespace of the caller, which this process must own.
pub fn run_from_read_only_here(args: &Args) -> Result<()> {
    if is_read_only()? {
        return Ok(());
    }
    let program = away(|| {
        private_mounts()?;
        read_only_self()
    })?;
    execute(&program, args)
}

fn is_read_only() -> Result<bool> {
    let exe = Path::new("/proc/self/exe");
    Ok(statvfs(exe).on("statvfs", exe)?.f_flag.contains(StatVfsMountFlags::RDONLY))
}

fn private_mounts() -> Result<()> {
    unshare(clone::NEWNS)?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).on("make private", "/")
}

fn execute(program: &OwnedFd, args: &Args) -> Result<()> {
    let environment = args.environment.for_this_program();
    let arguments = strings(std::env::args_os())?;
    Err(sys::execute(program.as_fd(), &arguments, &environment.strings()?)).op("execveat jc-rootfs")
}
