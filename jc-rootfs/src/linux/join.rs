//! `--join`: the mount namespace, the root and the PID namespace of a running container.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jc_unshare::descriptor::open_dir;
use jc_unshare::namespaces::unshare;
use jc_unshare::procfs::{self, is_procfs};
use jc_unshare::supervise::{Execution, Lifeline, NewChild};
use jc_unshare::sys::{clone, setns};
use jc_unshare::{Absent, Context, Error, Result};
use rustix::fs::{Mode, OFlags, StatVfsMountFlags, fstat, openat, statvfs};
use rustix::io::Errno;
use rustix::process::{chroot, fchdir};

use super::args::Args;
use super::joined;
use super::mount::fscontext::clone_mount;
use super::mount::resolve::Missing;
use super::mount::top::make_private;
use super::payload::program::{read_only_self, strings};
use super::payload::{self, Directories, Invocation, Setup};
use super::sys;
use crate::TOOL;

/// Enters the root of the container of a process, and starts the program there and in its PID namespace.
pub fn enter(invocation: Invocation<'_>, pid: u32) -> Result<ExitCode> {
    let args = invocation.args;
    run_from_read_only(args)?;
    let target = Target::open(pid)?;
    let pid_namespace = target.other_pid_namespace()?;
    if args.process.no_wait && pid_namespace.is_none() {
        return start_without_wait(invocation, &target);
    }
    let setup = Setup::new(args)?;
    if let Some(pid_namespace) = pid_namespace {
        // This process reports the payload by the host's procfs.
        let enter = |setup: &mut Setup| open_directories(args, target.enter_root()?, setup);
        return joined::start(invocation, &pid_namespace, setup, enter);
    }
    let root = target.enter_root()?;
    if !payload::needs_child_to_lead(args) {
        return Err(run(invocation, root, setup, None));
    }
    let child = NewChild::of(TOOL).spawn(|life| run(invocation, root, setup, Some(life)))?;
    child.wait_keeping(&[]).map(Into::into)
}

/// Starts the program as a child that outlives this process.
fn start_without_wait(invocation: Invocation<'_>, target: &Target) -> Result<ExitCode> {
    let execution = Execution::new()?;
    let child = NewChild::of(TOOL).spawn_unbound(|_| {
        let prepare = || Ok((Setup::new(invocation.args)?, target.enter_root()?));
        let error = match prepare() {
            Ok((setup, root)) => run(invocation, root, setup, None),
            Err(error) => error,
        };
        execution.fail(error)
    })?;
    if execution.succeeds()? { Ok(ExitCode::SUCCESS) } else { Ok(child.end()?.into()) }
}

/// Returns only an error.
fn run(
    invocation: Invocation<'_>,
    root: OwnedFd,
    mut setup: Setup,
    life: Option<&Lifeline>,
) -> Error {
    let session = setup.begin_session(invocation.args);
    match session.and_then(|()| open_directories(invocation.args, root, &mut setup)) {
        Ok(directories) => payload::run(invocation, &directories, setup, life),
        Err(error) => error,
    }
}

/// Opens the console and the working directory in a root that this process has entered.
fn open_directories(args: &Args, root: OwnedFd, setup: &mut Setup) -> Result<Directories> {
    setup.open_console(root.as_fd(), false)?;
    Directories::open(args, root, Missing::Fail)
}

/// A process of the container, by a descriptor of its directory in /proc, which never becomes that of another
/// process. pidfd_open(2) takes a PID of this process's namespace, but the PID of the command line is one of the procfs
/// at /proc, and this process may be in the container's PID namespace.
pub struct Target {
    path: PathBuf,
    directory: OwnedFd,
}

impl Target {
    /// Opens the directory of a process. An absent process is an error.
    pub fn open(pid: u32) -> Result<Self> {
        let path = PathBuf::from(format!("/proc/{pid}"));
        let directory = open_dir(&path).absent()?.ok_or_else(|| gone(&path))?;
        Ok(Self { path, directory })
    }

    /// Opens a file of the directory. EACCES, EPERM: this process may not inspect the other one (ptrace(2)).
    fn open_part(&self, name: &str, flags: OFlags) -> Result<OwnedFd> {
        openat(&self.directory, name, flags | OFlags::CLOEXEC, Mode::empty())
            .on("open", self.path.join(name))
            .map_err(|error| match error.errno().map(Errno::from_raw_os_error) {
                // A process that ends has no namespaces and no root.
                Some(Errno::NOENT | Errno::SRCH) => gone(&self.path),
                _ => {
                    error.hint("joining needs CAP_SYS_PTRACE and CAP_SYS_ADMIN over the container")
                }
            })
    }

    /// The PID namespace of the process, unless this process is in it.
    pub fn other_pid_namespace(&self) -> Result<Option<OwnedFd>> {
        let namespace = self.open_part("ns/pid", OFlags::RDONLY)?;
        let is_own = inode(&namespace)? == procfs::namespace("pid")?;
        Ok((!is_own).then_some(namespace))
    }

    /// Enters the mount namespace and the root of the process. Returns the root.
    fn enter_root(&self) -> Result<OwnedFd> {
        let mounts = self.open_part("ns/mnt", OFlags::RDONLY)?;
        let root = self.open_part("root", OFlags::PATH | OFlags::DIRECTORY)?;
        setns(mounts.as_fd(), clone::NEWNS).on("setns", self.path.join("ns/mnt"))?;
        fchdir(&root).on("chdir", self.path.join("root"))?;
        chroot(".").on("chroot", self.path.join("root"))?;
        Ok(root)
    }

    /// Creates a detached copy of the mount at /proc in the container. An error unless that is a procfs of the PID
    /// namespace.
    pub fn procfs(&self, pid_namespace: &OwnedFd) -> Result<OwnedFd> {
        let path = Path::new("/proc");
        let proc = in_other_namespace(|| {
            self.enter_root()?;
            clone_mount(path, false)
        })?;
        let is_right = || -> Result<bool> {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let first = openat(&proc, "1/ns/pid", flags, Mode::empty()).op("open 1/ns/pid")?;
            Ok(is_procfs(proc.as_fd())? && inode(&first)? == inode(pid_namespace)?)
        };
        match is_right() {
            Ok(true) => Ok(proc),
            Ok(false) | Err(_) => {
                Err(Error::new("/proc of the container: not a procfs of its PID namespace"))
            }
        }
    }
}

/// The error for a process without a directory in /proc.
fn gone(path: &Path) -> Error {
    let pid = path.file_name().unwrap_or_default().display();
    Error::new(format_args!("join {pid}: no such process"))
}

fn inode(fd: &OwnedFd) -> Result<u64> {
    Ok(fstat(fd).op("fstat")?.st_ino)
}

/// Calls a function that enters another mount namespace or root, and then returns to this one.
fn in_other_namespace<T>(act: impl FnOnce() -> Result<T>) -> Result<T> {
    let path = "/proc/self/ns/mnt";
    let mounts: OwnedFd = fs::File::open(path).on("open", path)?.into();
    let (root, directory) = (open_dir(Path::new("/"))?, open_dir(Path::new("."))?);
    let result = act();
    setns(mounts.as_fd(), clone::NEWNS).on("setns", path)?;
    fchdir(&root).on("chdir", "/")?;
    chroot(".").on("chroot", "/")?;
    fchdir(&directory).op("fchdir")?;
    result
}

/// Executes this program once more, from a detached read-only mount of its file, and without the variables of the
/// caller. A process in the container may read the memory of the new process and open its /proc/PID/exe, and must not
/// write to the host's file (CVE-2019-5736). This process stays in a mount namespace of its own, which the copy of a
/// mount needs.
fn run_from_read_only(args: &Args) -> Result<()> {
    if is_read_only()? {
        return Ok(());
    }
    private_mounts()?;
    execute(&read_only_self()?, args)
}

/// Does the same as [`run_from_read_only`], but stays in the mount namespace of the caller, whose user namespace must
/// be this process's.
pub fn run_from_read_only_here(args: &Args) -> Result<()> {
    if is_read_only()? {
        return Ok(());
    }
    let program = in_other_namespace(|| {
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
    make_private().map(drop)
}

fn execute(program: &OwnedFd, args: &Args) -> Result<()> {
    let environment = args.environment.for_this_program();
    let arguments = strings(std::env::args_os())?;
    Err(sys::execute(program.as_fd(), &arguments, &environment.strings()?)).op("execveat jc-rootfs")
}
