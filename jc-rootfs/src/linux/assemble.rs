//! The assembly of a root: a mount namespace, the root, its mounts, pivot_root(2), and the payload.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use jc_unshare::capability::MKNOD;
use jc_unshare::namespaces::unshare;
use jc_unshare::process::deny_tracing;
use jc_unshare::procfs;
use jc_unshare::sys::{clone, setns};
use jc_unshare::{Context, Error, Result};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{chdir, chroot, fchdir, pivot_root};

use super::args::Args;
use super::args::mounts::Mount;
use super::args::values::{Dev, Proc, Sys};
use super::args::words::Depth;
use super::join::{Target, run_from_read_only_here};
use super::joined;
use super::mount::bind::{self, Detached};
use super::mount::dev::mount_dev;
use super::mount::mask::Mounted;
use super::mount::proc::mount_proc;
use super::mount::resolve::Missing;
use super::mount::sysfs::mount_sys;
use super::mount::top::{Top, make_private};
use super::mount::word::Planned;
use super::payload::gate::Gate;
use super::payload::init::Init;
use super::payload::sysctl::Sysctl;
use super::payload::{self, ContainerRoot, Directories, Invocation, Setup};
use super::root::{Bare, MountedRoot, OwnMounts, ProtectedBind, Root};
use super::sys::{mount_setattr, propagation};
use crate::user::{self, Identity};

/// Assembles the root and executes the program. Returns only an error.
pub fn enter(invocation: Invocation<'_>, root: &Root) -> Error {
    let args = invocation.args;
    let prepare = || {
        let mut setup = Setup::new(args)?;
        setup.begin_session(args)?;
        Ok((prepare(args, root, &mut setup, None)?, setup))
    };
    match prepare() {
        Ok((directories, setup)) => payload::run(invocation, &directories, setup, None),
        Err(error) => error,
    }
}

/// Assembles the root and starts the program in the PID namespace of a process. `None`: this process is in that
/// PID namespace.
pub fn enter_joined(invocation: Invocation<'_>, root: &Root, pid: u32) -> Result<Option<ExitCode>> {
    let args = invocation.args;
    let target = Target::open(pid)?;
    let Some(pid_namespace) = target.other_pid_namespace()? else { return Ok(None) };
    run_from_read_only_here(args)?;
    let setup = Setup::new(args)?;
    let proc = target.procfs(&pid_namespace)?;
    let enter = |setup: &mut Setup| prepare(args, root, setup, Some(proc));
    joined::start(invocation, &pid_namespace, setup, enter).map(Some)
}

/// Assembles the root and makes it "/". `proc` is a mount for /proc of another PID namespace.
fn prepare(
    args: &Args,
    root: &Root,
    setup: &mut Setup,
    proc: Option<OwnedFd>,
) -> Result<Directories> {
    match &args.manual.mount_namespace {
        Some(path) => enter_mounts(path)?,
        None => unshare(clone::NEWNS)?,
    }
    // The sources are paths of the host, and propagation to the host needs its peer groups.
    let mounts = create_mounts(args)?;
    let bare = open_bare(args, root)?;
    if !args.manual.words.is_empty() {
        setup.enter_network()?;
    }
    // The user that makes a file system owns it.
    let words = Planned::all(&args.manual.words, !args.manual.become_root)?;
    if args.manual.become_root {
        become_root()?;
    }
    let top = if args.manual.mount_namespace.is_none() { make_private()? } else { None };
    setup.init = Init::new(args)?;
    let mut mounted = match bare {
        Some((bare, path)) => MountedRoot::bare(bare.attach(path)?),
        None => root.attach(args.read_only, OwnMounts(&own_mounts(args)))?,
    };
    let directory = mounted.directory.try_clone().on("dup", "/")?;
    mount_kernels(args, directory.as_fd(), proc, setup)?;
    let protected = attach_all(args, &directory, &mounts)?;
    words.iter().try_for_each(|word| word.attach(directory.as_fd()))?;
    if args.dev() == Dev::Nodes {
        mount_dev(directory.as_fd(), args.dev(), &args.shm_size, false)?;
    }
    args.manual.nodes.iter().try_for_each(|node| node.create(directory.as_fd()))?;
    setup.open_console(directory.as_fd(), true)?;
    setup.gates.pass(Gate::Mounts, setup.started.as_ref())?;
    args.manual.sysctls.iter().try_for_each(Sysctl::apply)?;
    let kernels = Mounted { proc: args.proc() != Proc::None, sys: args.sys() != Sys::None };
    args.mask.apply(directory.as_fd(), kernels)?;
    let directories = Directories::open(args, directory, Missing::MakeDir)?;
    mounted.record()?;
    protected.into_iter().try_for_each(ProtectedBind::record)?;
    if args.read_only {
        mounted.make_read_only()?;
    }
    change_root(args, &directories.root.0, top)?;
    if let Some((types, depth)) = args.manual.root_propagation {
        mount_setattr(directories.root.0.as_fd(), 0, types, depth == Depth::All)
            .on("set propagation of", "/")?;
    }
    Ok(directories)
}

/// Mounts /proc, /dev and /sys. Nodes of /dev come after the other mounts.
fn mount_kernels(
    args: &Args,
    directory: BorrowedFd<'_>,
    proc: Option<OwnedFd>,
    setup: &mut Setup,
) -> Result<()> {
    mount_proc(directory, args.proc(), proc)?;
    if args.dev() != Dev::Nodes {
        let makes_devices = args.caps.sets()?.is_some_and(|sets| sets.bounding & 1 << MKNOD != 0);
        mount_dev(directory, args.dev(), &args.shm_size, makes_devices)?;
    }
    setup.enter_network()?;
    mount_sys(directory, args.sys())
}

/// The user and the group of the payload, by the files of the root.
fn identity(args: &Args, root: &OwnedFd) -> Result<Identity> {
    match &args.user {
        Some(user) => {
            let root = root.try_clone().op("dup")?;
            user::find(user, &ContainerRoot(root))
        }
        None => Ok(Identity {
            uid: Uid::effective().as_raw(),
            gid: Gid::effective().as_raw(),
            groups: Vec::new(),
        }),
    }
}

/// Makes `root` the root of this process.
fn change_root(args: &Args, root: &OwnedFd, top: Option<Top>) -> Result<()> {
    if args.manual.mount_namespace.is_some() {
        // pivot_root(2) would change the root of other processes.
        fchdir(root).op("fchdir")?;
        return chroot(".").op("chroot");
    }
    top.map_or(Ok(()), |top| top.enter())?;
    pivot(root)
}

/// Enters the mount namespace of a file, unless this process is in it: setns(2) would replace the root of a chroot.
fn enter_mounts(path: &Path) -> Result<()> {
    // O_NONBLOCK: the open of a FIFO would wait.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let namespace = open(path, flags, Mode::empty()).on("open", path)?;
    if fstat(&namespace).on("stat", path)?.st_ino == procfs::namespace("mnt")? {
        return Ok(());
    }
    setns(namespace.as_fd(), clone::NEWNS).on("setns", path)
}

/// Becomes root of the user namespace. A user that the namespace lacks can open files of the host, and owns no file of a
/// new file system.
fn become_root() -> Result<()> {
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    setgroups(&[]).op("setgroups")?;
    setresgid(gid, gid, gid).op("setresgid")?;
    setresuid(uid, uid, uid).op("setresuid")?;
    // The change of the user may have made this process traceable.
    deny_tracing()
}

/// Opens a directory that is the root of `--bare`.
fn open_bare<'a>(args: &Args, root: &'a Root) -> Result<Option<(Bare, &'a Path)>> {
    let Root::Directory(directory) = root else { return Ok(None) };
    if !args.manual.bare {
        return Ok(None);
    }
    let is_slave =
        args.manual.root_propagation.is_some_and(|(types, _)| types == propagation::SLAVE);
    Ok(Some((Bare::open(directory, is_slave)?, directory)))
}

/// The names in the root at which this program mounts file systems of its own.
fn own_mounts(args: &Args) -> Vec<&'static str> {
    let all = [
        ("proc", args.proc() != Proc::None),
        ("dev", !matches!(args.dev(), Dev::None | Dev::Nodes)),
        ("sys", args.sys() != Sys::None),
    ];
    all.into_iter().filter(|(_, is_mounted)| *is_mounted).map(|(name, _)| name).collect()
}

/// Creates detached mounts for `--bind`, `--device` and `--tmpfs`. An outer target comes before the targets below.
/// `None`: overlays are mounted later, when no mount propagates to the host any more.
fn create_mounts(args: &Args) -> Result<Vec<(&Mount, Option<Detached<'_>>)>> {
    let mut mounts: Vec<&Mount> =
        args.binds.iter().chain(&args.devices).chain(&args.tmpfs).collect();
    mounts.sort_by_key(|mount| mount.target.components().count());
    let create = |mount| match Mount::upper(mount) {
        Some(_) => bind::make_source(mount).map(|()| None),
        None => Detached::new(mount).map(Some),
    };
    mounts.into_iter().map(|mount| Ok((mount, create(mount)?))).collect()
}

/// Attaches the mounts. Returns those whose changes go elsewhere.
fn attach_all(
    args: &Args,
    root: &OwnedFd,
    mounts: &[(&Mount, Option<Detached<'_>>)],
) -> Result<Vec<ProtectedBind>> {
    let mut protected = Vec::new();
    for (mount, detached) in mounts {
        match (detached, mount.upper()) {
            (Some(detached), _) => {
                detached.map_owners(|| identity(args, root))?;
                detached.attach(root.as_fd())?;
            }
            (None, Some((directory, upper))) => {
                let Mount { target, attributes, .. } = mount;
                let bind = ProtectedBind::mount(directory, upper, target, *attributes)?;
                bind.attach(root.as_fd(), target)?;
                protected.push(bind);
            }
            (None, None) => {}
        }
    }
    Ok(protected)
}

/// Makes `root` the root and detaches the host's. If both arguments of pivot_root(2) are ".", the old root is
/// mounted over the new one, and the new root needs no directory for the old one (pivot_root(2), NOTES).
fn pivot(root: &OwnedFd) -> Result<()> {
    fchdir(root).op("fchdir")?;
    pivot_root(".", ".").map_err(|errno| {
        let error = Err::<(), _>(errno).op("pivot_root");
        let error = error.err().unwrap_or_else(|| Error::new("pivot_root"));
        match errno {
            Errno::INVAL => error.hint("an initramfs cannot be pivoted away: switch_root(8) first"),
            _ => error,
        }
    })?;
    unmount(".", UnmountFlags::DETACH).op("unmount the old root")?;
    chdir(Path::new("/")).on("chdir", "/")
}
